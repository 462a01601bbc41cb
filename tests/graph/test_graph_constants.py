"""Which values are constants: one answer, where rules, types, shapes and adapters had their own."""

import numpy as np
import onnx_ir as ir
import pytest

from vlmpass.ir_tools.graph.constants import constant_of, is_constant, source_of
from vlmpass.ir_tools.graph.edit import constant_value
from vlmpass.rewriter_rules.opset.queries import constant, known_or_none

MODEL = ir.from_onnx_text(
    """<ir_version: 10, opset_import: ["" : 21, "local" : 1]>
    g (float[2] x, float[2] fed, bool c) => (float[2] y)
    <float[2] fed = {1, 2}, float[2] w = {3, 4}> {
        whole = Constant <value: tensor = float[2] {5, 6}> ()
        integers = Constant <value_ints: ints = [1, 2]> ()
        text = Constant <value_string = "a"> ()
        texts = Constant <value_strings = ["a", "b"]> ()
        named = Identity(w)  twice = Identity(named)  other = Neg(w)
        y = If (c) <
            then_branch = then () => (float[2] t) { t = Add(w, whole) },
            else_branch = else () => (float[2] e) { e = Mul(w, fed) }
        >
    }
    <domain: "local", opset_import: ["" : 21]> F <number> (a) => (b) {
        given = Constant <value_float: float = @number> ()  b = Mul(a, given) }"""
)
VALUES = {
    value.name: value
    for value in (
        *MODEL.graph.inputs,
        *MODEL.graph.initializers.values(),
        *(output for node in MODEL.graph for output in node.outputs),
        *(output for node in next(iter(MODEL.functions.values())) for output in node.outputs),
    )
}
HELD = {
    "w": [3.0, 4.0],
    "whole": [5.0, 6.0],
    "integers": [1, 2],
    "text": b"a",
    "texts": [b"a", b"b"],
}


def held(tensor: ir.TensorProtocol | None) -> object:
    return None if tensor is None else tensor.numpy().tolist()


@pytest.mark.parametrize("name", sorted(VALUES))
def test_what_a_value_is_in_every_run(name: str) -> None:
    assert held(constant_of(VALUES[name])) == HELD.get(name)
    constants = {*HELD, "given"}
    assert is_constant(VALUES[name]) == (name in constants)


def test_no_value_is_no_constant() -> None:
    assert constant_of(None) is None
    assert known_or_none(None) is None


def test_an_input_is_a_constant_only_where_no_caller_gives_it() -> None:
    assert held(constant_of(VALUES["fed"], ir_version=3)) == [1.0, 2.0]
    assert constant_of(VALUES["fed"], ir_version=4) is None


def test_adapters_look_through_identities() -> None:
    assert source_of(VALUES["twice"]) is VALUES["w"]
    assert source_of(VALUES["other"]) is VALUES["other"]
    assert held(constant(VALUES["twice"])) == [3.0, 4.0]


def test_a_constant_need_not_lie_in_a_graph_yet() -> None:
    value = constant_value(ir.tensor(np.array([7], np.int64)), "new")
    assert held(constant_of(value)) == [7]
