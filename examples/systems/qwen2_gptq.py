"""A Qwen2 whose linear layers are GPTQ's and whose norms are in bfloat16, for ONNX Runtime's CPU.

It has no bfloat16 arithmetic; the result has float32 and one MatMulNBits for each layer, whose four
bits stay the four bits they were.

    python examples/systems/qwen2_gptq.py
"""

import sys
import tempfile
from functools import partial
from pathlib import Path

import torch
from shown import furthest, largest, on_onnxruntime, refusal, show
from transformers import Qwen2Config
from transformers.models.qwen2.modeling_qwen2 import Qwen2ForCausalLM

import vlmpass

CONFIG = Qwen2Config(
    vocab_size=256, hidden_size=64, intermediate_size=128, num_hidden_layers=2,
    num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=128,
)  # fmt: skip
GROUP = 32


class QuantLinear(torch.nn.Module):
    """Four bits eight to a word, a scale and a zero point for each group, unpacked in the graph."""

    def __init__(self, inner: int, outer: int) -> None:
        super().__init__()
        low, high = -(2**31), 2**31 - 1
        self.register_buffer(
            "qweight", torch.randint(low, high, (inner // 8, outer), dtype=torch.int32)
        )
        self.register_buffer(
            "qzeros", torch.randint(low, high, (inner // GROUP, outer // 8), dtype=torch.int32)
        )
        self.register_buffer("scales", 0.01 + 0.02 * torch.rand(inner // GROUP, outer))
        self.register_buffer("g_idx", torch.arange(inner) // GROUP)
        self.register_buffer("shifts", torch.arange(0, 32, 4, dtype=torch.int32))

    def _unpack(self, packed: torch.Tensor, shifts: torch.Tensor) -> torch.Tensor:
        return torch.bitwise_and(torch.bitwise_right_shift(packed, shifts), 15)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        zeros = self._unpack(self.qzeros[:, :, None], self.shifts[None, None])
        zeros = zeros.reshape(self.scales.shape) + 1
        numbers = self._unpack(self.qweight[:, None, :], self.shifts[None, :, None])
        numbers = numbers.reshape(-1, self.scales.shape[1])
        dense = self.scales[self.g_idx] * (numbers - zeros[self.g_idx]).to(self.scales.dtype)
        return torch.matmul(x, dense.to(x.dtype))


class Decoder(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.model = Qwen2ForCausalLM(CONFIG)
        for name, layer in list(self.model.model.layers.named_modules()):
            if isinstance(layer, torch.nn.Linear):
                made = QuantLinear(layer.in_features, layer.out_features)
                parent, _, own = name.rpartition(".")
                setattr(self.model.model.layers.get_submodule(parent), own, made)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        return self.model(input_ids, attention_mask=attention_mask, use_cache=False).logits


def main() -> int:
    torch.manual_seed(0)
    module = Decoder().to(torch.bfloat16).eval()
    ids = torch.randint(0, 256, (1, 9))
    inputs = (ids, torch.ones_like(ids))
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        source, path = Path(folder) / "qwen2.onnx", Path(folder) / "ort.onnx"
        torch.onnx.export(
            module, inputs, source, dynamo=True, verbose=False, optimize=False,
            input_names=["input_ids", "attention_mask"],
        )  # fmt: skip
        before = refusal(partial(on_onnxruntime, source, {}), "NOT_IMPLEMENTED")
        report = vlmpass.Pipeline(dtype="float32", target="ort-cpu").convert(
            source, path, verify=True
        )
        feed = dict(zip(("input_ids", "attention_mask"), (x.numpy() for x in inputs), strict=True))
        run = on_onnxruntime(path, feed)
        packed = report.after.facts.operators.get("com.microsoft::MatMulNBits", 0)
        assert packed == 14, packed
        assert furthest([module(*inputs).float().numpy()], run()) <= 0.05
        fine = show("Qwen2 with GPTQ layers, bfloat16", before, report, largest(report), 1e-2, run)
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
