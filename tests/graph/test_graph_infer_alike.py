"""What is found once for all new nodes that are alike is what each of them would be given."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from vlmpass.ir_tools.graph import infer_alike
from vlmpass.ir_tools.graph.infer_alike import infer_new
from vlmpass.ir_tools.graph.infer_node import infer_node
from vlmpass.ir_tools.graph.walk import scopes
from vlmpass.ir_tools.load import load

FIXTURES = sorted((Path(__file__).parents[1] / "fixtures").rglob("*.onnx"), key=str)[::3]
OPSETS = {"": 21}


def again(node: ir.Node) -> ir.Node:
    return ir.Node(
        node.domain,
        node.op_type,
        node.inputs,
        node.attributes,
        overload=node.overload,
        num_outputs=len(node.outputs),
    )


def given(node: ir.Node) -> list[object]:
    return [
        (each.type, each.shape and list(each.shape), each.const_value is None, each.metadata_props)
        for each in node.outputs
    ]


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: path.stem)
def test_every_node_of_a_fixture_gets_what_it_would_get_alone(path: Path) -> None:
    for scope in scopes(load(path)):
        for node in scope.graph:
            alone, first, second = (again(node) for _ in range(3))
            infer_node(alone, scope.opsets)
            infer_new(first, scope.opsets)
            infer_new(second, scope.opsets)
            assert given(alone) == given(first) == given(second)


def tensor(*dims: int | str | None) -> ir.Value:
    return ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(dims))


def constant(*numbers: int) -> ir.Value:
    value = ir.tensor(np.array(numbers, np.int64))
    return ir.Value(name="c", type=ir.TensorType(value.dtype), shape=value.shape, const_value=value)


def shape_of(op_type: str, *inputs: ir.Value, **attributes: int) -> list[object] | None:
    kept = [ir.AttrInt64(name, value) for name, value in attributes.items()]
    node = ir.Node("", op_type, inputs, kept)
    infer_new(node, OPSETS)
    shape = node.outputs[0].shape
    return None if shape is None else list(shape)


def test_constants_and_attributes_and_names_tell_nodes_apart() -> None:
    x = tensor("n", 12)
    assert shape_of("Reshape", x, constant(-1, 3)) != shape_of("Reshape", x, constant(-1, 4))
    assert shape_of("Concat", x, x, axis=0) != shape_of("Concat", x, x, axis=1)
    assert shape_of("Relu", tensor("n", 12)) != shape_of("Relu", tensor("m", 12))
    assert shape_of("Relu", tensor(None, 12)) != shape_of("Relu", tensor("n", 12))


def test_one_value_twice_is_not_two_values() -> None:
    x, y = tensor(None, 4), tensor(None, 4)
    for pair in ((x, x), (x, y), (y, y)):
        node = ir.Node("", "Add", pair)
        infer_node(node, OPSETS)
        assert shape_of("Add", *pair) == list(node.outputs[0].shape or ())


def test_what_is_given_to_one_node_is_its_own() -> None:
    first, second = (ir.Node("", "Relu", [tensor(2, 3)]) for _ in range(2))
    infer_new(first, OPSETS)
    infer_new(second, OPSETS)
    shape = first.outputs[0].shape
    assert shape is not None
    shape[0] = 7
    first.outputs[0].dtype = ir.DataType.FLOAT16
    assert second.outputs[0].shape == [2, 3]
    assert second.outputs[0].dtype == ir.DataType.FLOAT


def test_no_more_than_some_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(infer_alike, "_MOST", 8)
    for size in range(40):
        assert shape_of("Relu", tensor(size)) == [size]
    assert len(infer_alike._FOUND) <= 8
