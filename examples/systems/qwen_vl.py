"""Qwen2.5-VL's vision tower and decoder, exported in bfloat16 by transformers' own exporter, for
ONNX Runtime's CPU, which has no arithmetic in it.

    python examples/systems/qwen_vl.py
"""

import logging
import sys
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import torch
from shown import largest, on_onnxruntime, refusal, show
from transformers.exporters import OnnxConfig, OnnxExporter
from transformers.models.qwen2_5_vl.configuration_qwen2_5_vl import (
    Qwen2_5_VLTextConfig,
    Qwen2_5_VLVisionConfig,
)
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import (
    Qwen2_5_VisionTransformerPretrainedModel,
    Qwen2_5_VLTextModel,
)

import vlmpass

VISION = Qwen2_5_VLVisionConfig(
    depth=2, hidden_size=64, intermediate_size=96, num_heads=4, out_hidden_size=64,
    fullatt_block_indexes=[1], window_size=56, patch_size=14,
)  # fmt: skip
TEXT = Qwen2_5_VLTextConfig(
    vocab_size=256, hidden_size=64, intermediate_size=96, num_hidden_layers=2,
    num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=128,
    rope_parameters={"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 1e6},
)  # fmt: skip


def parts() -> dict[str, tuple[torch.nn.Module, dict[str, torch.Tensor], OnnxConfig]]:
    """Return modules, their inputs, and what is left open of them."""
    length = torch.export.Dim("length", min=2, max=64)
    tower = {
        "hidden_states": torch.randn(64, 3 * 2 * 14 * 14).to(torch.bfloat16),
        "grid_thw": torch.tensor([[1, 8, 8]]),
    }
    decoder = {
        "inputs_embeds": torch.randn(1, 11, 64).to(torch.bfloat16),
        "position_ids": torch.arange(11)[None, None].expand(3, 1, -1).contiguous(),
        "use_cache": False,
    }
    axes = {"inputs_embeds": {1: length}, "position_ids": {2: length}}
    return {
        "Qwen2.5-VL vision tower": (
            Qwen2_5_VisionTransformerPretrainedModel(VISION), tower, OnnxConfig(),
        ),
        "Qwen2.5-VL decoder": (Qwen2_5_VLTextModel(TEXT), decoder, OnnxConfig(dynamic_shapes=axes)),
    }  # fmt: skip


def fed(inputs: dict[str, object]) -> dict[str, np.ndarray]:
    """Return the tensors among inputs; numpy has no bfloat16."""
    tensors = {key: x for key, x in inputs.items() if isinstance(x, torch.Tensor)}
    return {key: (x.float() if x.is_floating_point() else x).numpy() for key, x in tensors.items()}


def main() -> int:
    logging.disable(logging.WARNING)
    torch.manual_seed(0)
    fine = True
    for name, (module, inputs, config) in parts().items():
        module.to(torch.bfloat16).eval()
        with tempfile.TemporaryDirectory() as folder, torch.no_grad():
            source, path = Path(folder) / "source.onnx", Path(folder) / "ort.onnx"
            vlmpass.save(OnnxExporter().export(module, inputs, config=config).program, source)
            before = refusal(partial(on_onnxruntime, source, {}), "NOT_IMPLEMENTED")
            report = vlmpass.Pipeline(dtype="float32", target="ort-cpu").convert(
                source, path, verify=True
            )
            run = on_onnxruntime(path, fed(inputs))
            fine &= show(name, before, report, largest(report), 1e-2, run)
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
