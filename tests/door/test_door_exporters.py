"""What other exporters give is taken, and goes back to where it came from.

The step "export from PyTorch" of .ci/run installs what this needs.
"""

from __future__ import annotations

import logging
from importlib import import_module
from importlib.util import find_spec

import numpy as np
import onnx_ir as ir
import pytest
from door_tools import page_block

import vlmpass

torch = pytest.importorskip("torch", reason="the step 'export from PyTorch' runs these")
pytest.importorskip("transformers", reason="the step 'export from PyTorch' runs these")


@pytest.fixture(scope="module")
def mlp(tmp_path_factory):
    """A model with a norm in pieces, written by PyTorch, its weights inside."""
    torch.manual_seed(0)
    module = torch.nn.Sequential(
        torch.nn.LayerNorm(16), torch.nn.Linear(16, 32), torch.nn.GELU(), torch.nn.Linear(32, 4)
    ).eval()
    path = tmp_path_factory.mktemp("mlp") / "mlp.onnx"
    torch.onnx.export(
        module, (torch.randn(2, 16),), path, dynamo=True, verbose=False, external_data=False
    )
    return path


def installed(name):
    """A package that is there and does not import is an error, no skip."""
    if find_spec(name) is None:
        pytest.skip("the step 'export from PyTorch' runs these")
    return import_module(name)


def olive(monkeypatch):
    installed("olive")
    monkeypatch.setenv("OLIVE_DISABLE_TELEMETRY", "1")
    return page_block("optimized")


@pytest.mark.parametrize(
    ("config", "opset"),
    [
        ({}, None),
        ({"pipeline": "simplify,convert-opset{to=15}", "verify": True}, 15),
    ],
)
def test_a_pass_of_olive(tmp_path, monkeypatch, mlp, config, opset):
    given = {"type": "Vlmpass", "config": config}
    made = olive(monkeypatch)(mlp, tmp_path / "out", given)
    assert vlmpass.verify(mlp, made).ok
    found = vlmpass.load(made).graph.opset_imports[""]
    assert found == (opset or vlmpass.load(mlp).graph.opset_imports[""])


def test_what_is_refused_in_olive_is_an_error_and_no_model(tmp_path, monkeypatch, mlp, caplog):
    monkeypatch.setattr(logging.getLogger("olive"), "handlers", [caplog.handler])
    for config, said in (
        ({"opset": 3}, "opset 3 is out of range"),
        ({"pipeline": "none"}, "no pass named 'none'"),
        ({"opset": 17, "pipeline": "simplify"}, "say everything"),
    ):
        with pytest.raises(AttributeError):  # Olive logs it, and has no best candidate
            olive(monkeypatch)(mlp, tmp_path / "out", {"type": "Vlmpass", "config": config})
        assert said in caplog.text
        assert not list(tmp_path.rglob("*.onnx"))


def test_a_package_of_mobius(tmp_path):
    mobius = installed("mobius")
    from mobius.models.base import CausalLMModel

    config = mobius.ArchitectureConfig(
        vocab_size=50, hidden_size=32, intermediate_size=64, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1, head_dim=16, hidden_act="silu",
        max_position_embeddings=32, pad_token_id=0, rope_type="default",
    )  # fmt: skip
    package = mobius.build_from_module(CausalLMModel(config), config)
    rng = np.random.default_rng(0)
    for value in package["model"].graph.initializers.values():
        if value.const_value is None:
            array = (rng.standard_normal(value.shape.numpy()) / 8).astype(np.float32)
            value.const_value = ir.tensor(array, name=value.name)
    package.save(str(tmp_path / "source"), progress_bar=False)
    source = package["model"]
    converted = page_block("converted_package")(package, "ort-cpu")
    assert converted is package
    assert len(list(package["model"].graph)) < len(list(source.graph))
    package.save(str(tmp_path / "made"), progress_bar=False)
    pair = (tmp_path / folder / "model.onnx" for folder in ("source", "made"))
    assert vlmpass.verify(*pair).ok


def test_the_exporter_of_transformers():
    from transformers import ViTConfig, ViTModel

    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
        image_size=32, patch_size=16,
    )  # fmt: skip
    model, image = ViTModel(config, add_pooling_layer=False).eval(), torch.randn(1, 3, 32, 32)
    exported = page_block("export_for")(model, {"pixel_values": image}, "ort-cpu")
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
    converted = page_block("converted")(program, 17)
    assert converted.model.opset_imports[""] == 17
    (found,) = converted(x)
    assert torch.allclose(found, module(x), atol=1e-6)
