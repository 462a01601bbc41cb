"""Whisper's encoder and decoder in a float16 that is right on hardware that computes in it.

The residual stream of large Whispers passes 65 504, as one layer's here does. ONNX Runtime's
converter gives a model whose numbers are then NaN on a GPU, and which its CPU, computing in
float32, shows as fine. Shown inputs, what overflows stays in float32, and the result is held
to the source with every value rounded as hardware does.

    python examples/systems/whisper.py
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import torch
from onnxruntime.transformers.float16 import convert_float_to_float16
from shown import on_onnxruntime, show
from transformers import WhisperConfig
from transformers.models.whisper.modeling_whisper import WhisperDecoder, WhisperEncoder

import vlmpass

CONFIG = WhisperConfig(
    d_model=64, encoder_layers=1, decoder_layers=1, encoder_attention_heads=4,
    decoder_attention_heads=4, encoder_ffn_dim=128, decoder_ffn_dim=128, vocab_size=256,
    num_mel_bins=16, max_source_positions=32, max_target_positions=32, pad_token_id=0,
    bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
)  # fmt: skip


def make_loud(layer: torch.nn.Module) -> None:
    """Let one channel of a layer's sum pass what float16 holds, its weights far below that."""
    with torch.no_grad():
        layer.fc1.bias.fill_(1.0)
        layer.fc2.weight[3] = 2e3


class Encoder(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.model = WhisperEncoder(CONFIG)
        make_loud(self.model.layers[0])

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.model(features).last_hidden_state


class Decoder(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.model = WhisperDecoder(CONFIG)
        make_loud(self.model.layers[0])

    def forward(self, ids: torch.Tensor, heard: torch.Tensor) -> torch.Tensor:
        found = self.model(ids, encoder_hidden_states=heard, use_cache=False)
        return found.last_hidden_state @ self.model.embed_tokens.weight.T


def main() -> int:
    torch.manual_seed(0)
    heard = torch.randn(1, 32, 64)
    parts = {
        "Whisper encoder in float16": (Encoder(), {"features": torch.randn(1, 16, 64)}),
        "Whisper decoder in float16": (
            Decoder(), {"ids": torch.randint(3, 256, (1, 7)), "heard": heard},
        ),
    }  # fmt: skip
    fine = True
    for name, (module, inputs) in parts.items():
        module.eval()
        with tempfile.TemporaryDirectory() as folder, torch.no_grad():
            source, cast, path = (Path(folder) / f"{n}.onnx" for n in ("source", "cast", "right"))
            torch.onnx.export(module, tuple(inputs.values()), source, dynamo=True, verbose=False)
            given, feed = Path(folder) / "inputs.npz", {k: x.numpy() for k, x in inputs.items()}
            np.savez(given, **feed)
            onnx.save(convert_float_to_float16(onnx.load(source)), cast)
            judged = vlmpass.verify(source, cast, inputs=given, emulated="float16")
            assert not judged.ok, "its result is right"
            worst = next(each for each in judged.outputs if not each.ok)
            before = f"ONNX Runtime's converter, rounded as hardware does: {worst.reason}"
            report = vlmpass.Pipeline(dtype="float16", calibrate=str(given)).convert(
                source, path, verify=True
            )
            right = vlmpass.verify(source, path, inputs=given, emulated="float16")
            assert right.ok
            assert report.checked.rounded is None or report.checked.rounded.ok
            fine &= show(name, before, report, right.max_rel, 2e-2, on_onnxruntime(path, feed))
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
