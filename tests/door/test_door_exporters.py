"""What other exporters give is taken, and goes back to where it came from.

The step "export from PyTorch" of .ci/run installs what this needs.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the step 'export from PyTorch' runs these")
pytest.importorskip("transformers", reason="the step 'export from PyTorch' runs these")
PAGE = Path(__file__).parents[2] / "docs" / "exporters.md"


def function(name):
    """A function of the page, as it stands there."""
    found: dict[str, object] = {}
    blocks = PAGE.read_text("utf-8").split("```python\n")[1:]
    code = next(each.partition("```")[0] for each in blocks if f"def {name}(" in each)
    exec(compile(code, str(PAGE), "exec"), found)
    return found[name]


def test_the_exporter_of_transformers():
    from transformers import ViTConfig, ViTModel

    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
        image_size=32, patch_size=16,
    )  # fmt: skip
    model, image = ViTModel(config, add_pooling_layer=False).eval(), torch.randn(1, 3, 32, 32)
    exported = function("export_for")(model, {"pixel_values": image}, "ort-cpu")
    (found, *_) = exported(pixel_values=image).values()
    with torch.no_grad():
        wanted = model(image).last_hidden_state
    assert np.abs(np.asarray(found) - wanted.numpy()).max() < 1e-5
    operators = {node.op_type for node in exported.components["model"].program.graph}
    assert "MultiHeadAttention" in operators


def test_a_program_of_pytorch():
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.GELU()).eval()
    x = torch.randn(2, 8)
    program = torch.onnx.export(module, (x,), dynamo=True, verbose=False)
    converted = function("converted")(program, 17)
    assert converted.model.opset_imports[""] == 17
    (found,) = converted(x)
    assert torch.allclose(found, module(x), atol=1e-6)
