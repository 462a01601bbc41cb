"""Models whose types were changed wrongly: rounded, ignored, or by an error of our own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from vlmpass import Pipeline
from vlmpass.ir_tools.graph.walk import tensor_slots
from vlmpass.passes.dtype.repair_types import RepairTypes

_RNG = np.random.default_rng(0)
_MATRIX = _RNG.standard_normal((8, 8)).astype(np.float32)
_BIAS = _RNG.standard_normal(8).astype(np.float32)


def parse(text: str, opset: int) -> ir.Model:
    return ir.from_onnx_text(f'<ir_version: 8, opset_import: ["" : {opset}]> {text}')


def half_converted() -> ir.Model:
    """Half precision goes in and out of a product whose weights stayed float32."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["t"]),
        helper.make_node("Add", ["t", "b"], ["y"]),
    ]
    border = [helper.make_tensor_value_info(name, TensorProto.FLOAT16, [2, 8]) for name in "xy"]
    weights = [numpy_helper.from_array(_MATRIX, "w"), numpy_helper.from_array(_BIAS, "b")]
    graph = helper.make_graph(nodes, "g", border[:1], border[1:], weights)
    opsets = [helper.make_opsetid("", 17)]
    return ir.from_proto(helper.make_model(graph, ir_version=8, opset_imports=opsets))


def bits(model: ir.Model) -> dict[str, bytes]:
    return {slot.tensor.name or "": slot.tensor.tobytes() for slot in tensor_slots(model)}


def test_half_float32_weights_keep_their_bits_on_the_way_to_float32(tmp_path: Path) -> None:
    result = tmp_path / "o.onnx"
    Pipeline(dtype="float32").convert(half_converted(), result, verify=False)
    assert bits(ir.load(result)) == {"w": _MATRIX.tobytes(), "b": _BIAS.tobytes()}


def test_half_repair_casts_values_rather_than_rounding_weights() -> None:
    model = half_converted()
    RepairTypes().run(model)
    assert bits(model) == {"w": _MATRIX.tobytes(), "b": _BIAS.tobytes()}
    assert [node.op_type for node in model.graph] == ["Cast", "MatMul", "Add", "Cast"]


def test_half_repair_rounds_weights_where_half_precision_is_preferred() -> None:
    model = half_converted()
    RepairTypes(prefer="float16").run(model)
    assert [node.op_type for node in model.graph] == ["MatMul", "Add"]


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_half_double_models_are_converted(tmp_path: Path, dtype: str) -> None:
    model = parse(
        "g (double[b,2] x) => (double[b,2] y) <double[2,2] w = {0.1, 0.7, -0.3, 2}>"
        "{ r = Relu(x) y = MatMul(r, w) }",
        14,
    )
    report = Pipeline(dtype=dtype).convert(model, tmp_path / "o.onnx", verify=True)
    written = onnx.load(tmp_path / "o.onnx")
    wanted = getattr(TensorProto, dtype.upper().replace("32", ""))
    assert {each.data_type for each in written.graph.initializer} == {wanted}
    assert report.checked.numbers is not None


def test_half_repair_does_not_serve_a_cast_by_itself(tmp_path: Path) -> None:
    model = parse(
        """g (bool[2,3] m, bfloat16[2,3] x) => (bfloat16[2,3] y)
        <bfloat16 z = {0}, bfloat16 lo = {65378}> {
        w = Where(m, z, lo) c = Cast<to = 16>(w) y = Add(x, c) }""",
        14,
    )
    report = Pipeline(dtype="float32").convert(model, tmp_path / "o.onnx", verify=True)
    operators = [node.op_type for node in ir.load(tmp_path / "o.onnx").graph]
    assert operators == ["Where", "Add"]
    assert report.checked.numbers is not None
