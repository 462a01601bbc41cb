"""BLIP in parts: image encoder, text encoder and decoder, each exported for one image and one text,
simplified, and opened to any batch, which is proven of every shape on the way.

    python examples/systems/blip.py
"""

import sys
import tempfile
from pathlib import Path

import torch
from shown import furthest, on_onnxruntime, refusal, show
from transformers import BlipTextConfig, BlipVisionConfig
from transformers.models.blip.modeling_blip import BlipVisionModel
from transformers.models.blip.modeling_blip_text import BlipTextLMHeadModel, BlipTextModel

import vlmpass

VISION = BlipVisionConfig(
    hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
    image_size=64, patch_size=16,
)  # fmt: skip
TEXT = BlipTextConfig(
    vocab_size=256, hidden_size=64, encoder_hidden_size=64, intermediate_size=128,
    num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=32,
)  # fmt: skip


class Image(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.model = BlipVisionModel(VISION)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        return self.model(pixel_values).last_hidden_state


class Text(torch.nn.Module):
    """The encoder of a question that looks at an image, or the decoder of an answer."""

    def __init__(self, model: torch.nn.Module, output: str) -> None:
        super().__init__()
        self.model, self.output, self.causal = model, output, output == "logits"

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, image: torch.Tensor
    ) -> torch.Tensor:
        options = {"use_cache": False} if self.causal else {}
        found = self.model(
            input_ids, attention_mask, encoder_hidden_states=image, is_decoder=self.causal,
            return_dict=True, **options,
        )  # fmt: skip
        return getattr(found, self.output)


def parts() -> dict[str, tuple[torch.nn.Module, dict[str, torch.Tensor]]]:
    ids, image = torch.randint(0, 256, (3, 9)), torch.randn(3, 17, 64)
    text = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "image": image}
    decoder = BlipTextConfig(**{**TEXT.to_dict(), "is_decoder": True})
    return {
        "BLIP image encoder": (Image(), {"pixel_values": torch.randn(3, 3, 64, 64)}),
        "BLIP text encoder": (
            Text(BlipTextModel(TEXT, add_pooling_layer=False), "last_hidden_state"), text,
        ),
        "BLIP decoder": (Text(BlipTextLMHeadModel(decoder), "logits"), text),
    }  # fmt: skip


def main() -> int:
    torch.manual_seed(0)
    fine = True
    for name, (module, many) in parts().items():
        module.eval()
        feed = {key: x.numpy() for key, x in many.items()}
        with tempfile.TemporaryDirectory() as folder, torch.no_grad():
            source, path = Path(folder) / "one.onnx", Path(folder) / "any.onnx"
            one = tuple(x[:1] for x in many.values())
            torch.onnx.export(module, one, source, dynamo=True, verbose=False)
            before = refusal(on_onnxruntime(source, feed), "INVALID_ARGUMENT")
            axes = " ".join(f"{key}:0=batch" for key in many)
            passes = f"name-dims{{{axes}}},infer,fold,cse,simplify,remove-unused"
            report = vlmpass.Pipeline(passes).convert(source, path, verify=True)
            run = on_onnxruntime(path, feed)
            error = furthest([module(**many).numpy()], run())
            fine &= show(name, before, report, error, 1e-5, run)
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
