"""Factors moved into weights of any size stay lazy until the model is written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from rewrite.support import parse

from vlmpass.ir_tools.load import load
from vlmpass.ir_tools.rewrite import apply_rules
from vlmpass.ir_tools.save import save
from vlmpass.ir_tools.weights import StoredWeight, Weight
from vlmpass.passes.pipeline.text import parse as parse_pipeline
from vlmpass.rewriter_rules.simplify import SIMPLIFY


def _stored(tmp_path: Path) -> tuple[ir.Model, np.ndarray]:
    """Return a model whose weight lies in a file, and the weight."""
    weight = np.random.default_rng(0).standard_normal((512, 640)).astype(np.float32)
    model = parse(
        """g (float[n,512] x, float[512,640] w) => (float[n,640] y) {
           k = Constant<value_float=0.3>() m = MatMul(x, w) y = Mul(m, k) }"""
    )
    value = model.graph.inputs.pop()
    value.const_value = ir.tensor(weight, name="w")
    model.graph.register_initializer(value)
    save(model, tmp_path / "m.onnx")
    return load(tmp_path / "m.onnx"), weight


def test_a_stored_weight_is_scaled_while_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, weight = _stored(tmp_path)
    (before,) = [v.const_value for v in model.graph.initializers.values() if v.name == "w"]
    assert isinstance(before, StoredWeight)
    with monkeypatch.context() as patch:
        patch.setattr(StoredWeight, "numpy", lambda self: pytest.fail("the weight was read"))
        patch.setattr(StoredWeight, "tobytes", lambda self: pytest.fail("the weight was read"))
        assert apply_rules(model, SIMPLIFY).counts == {"scale-of-matmul": 1}
    (matmul,) = [node for node in model.graph if node.op_type == "MatMul"]
    assert matmul.inputs[1] is not None
    assert isinstance(matmul.inputs[1].const_value, Weight)
    (unused,) = parse_pipeline("remove-unused")
    unused.run(model)
    save(model, tmp_path / "scaled.onnx")
    written = load(tmp_path / "scaled.onnx")
    assert list(written.graph.initializers) == [matmul.inputs[1].name]
    (tensor,) = [value.const_value for value in written.graph.initializers.values()]
    assert tensor is not None
    assert np.array_equal(tensor.numpy(), weight * np.float32(0.3))
