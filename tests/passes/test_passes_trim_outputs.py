from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from tests.passes.simplifying import operators, proto_of, simplify
from vlmpass.passes.trim_outputs import TrimOutputs

X = {"x": np.arange(8, dtype=np.float32).reshape(2, 4)}


def trim(text: str, *feeds, **header) -> ir.Model:
    return simplify(proto_of(text, **header), [TrimOutputs()], *(feeds or (X,)))


def test_trailing_optional_outputs() -> None:
    model = trim("""g (float[n,4] x) => (float[n,4] y) <float[4] w = {1,2,3,4}> {
        y, m, v = LayerNormalization(x, w) }""")
    (node,) = model.graph
    assert len(node.outputs) == 1


def test_outputs_that_are_needed_or_not_optional_stay() -> None:
    model = trim("""g (float[n,4] x) => (float[n,2] y, float[n,2] i) {
        y, z = Split<axis=1, num_outputs=2>(x)  k = Constant<value_ints=[2]>()
        i, j = TopK(x, k) }""")
    assert [len(node.outputs) for node in model.graph if node.op_type != "Constant"] == [2, 2]


@pytest.mark.parametrize(
    ("opset", "call"),
    [
        (9, "y, a, b, c, d = BatchNormalization(x, w, w, w, w)"),
        (15, "y, m, v = BatchNormalization<training_mode=1>(x, w, w, w, w)"),
    ],
)
def test_batch_normalization_that_trains_has_all_its_outputs(opset: int, call: str) -> None:
    proto = proto_of(
        f"g (float[n,4] x) => (float[n,4] y) <float[4] w = {{1,2,3,4}}> {{ {call} }}",
        opset=opset,
        ir_version=4,
    )
    assert not TrimOutputs().run(ir.from_proto(proto))


def test_outputs_of_if_in_the_middle() -> None:
    text = """g (float[n,4] x, bool c) => (float[n,4] p, int64[2] r) {
        p, q, r = If (c) <
            then_branch = t () => (float[n,4] a, float[n,4] b, int64[2] d) {
                a = Neg(x)  e = Exp(x)  b = Neg(e)  d = Shape(x) },
            else_branch = e () => (float[n,4] a, float[n,4] b, int64[2] d) {
                a = Exp(x)  b = Neg(x)  d = Shape(a) }> }"""
    feeds = [{**X, "c": np.array(flag)} for flag in (True, False)]
    model = trim(text, *feeds)
    assert operators(model) == ["If", "Neg", "Shape", "Exp", "Shape"]


def test_scanned_and_idle_values_of_a_loop() -> None:
    text = """g (float[n,4] x, int64 m) => (float[n,4] y, float[k,n,4] z) {
        c = Constant<value: tensor = bool {1}>()  e = Exp(x)
        idle, y, u, z = Loop (m, c, e, x) <
            body = b (int64 i, bool p, float[n,4] w, float[n,4] v) =>
                (bool q, float[n,4] o, float[n,4] r, float[n,4] s, float[n,4] t) {
                q = Identity(p)  o = Identity(w)  r = Neg(v)  s = Exp(v)  t = Abs(v) }> }"""
    model = trim(text, {**X, "m": np.array(3)}, {**X, "m": np.array(0)})
    assert operators(model) == ["Loop", "Identity", "Neg", "Abs"]


def test_a_carried_value_that_is_looked_at_stays() -> None:
    text = """g (float[n,4] x, int64 m) => (float[n,4] y) {
        c = Constant<value: tensor = bool {1}>()
        last, y = Loop (m, c, x, x) <body = b (int64 i, bool p, float[n,4] w, float[n,4] v) =>
                (bool q, float[n,4] o, float[n,4] r) {
                q = Identity(p)  o = Neg(w)  r = Add(v, w) }> }"""
    assert operators(trim(text, {**X, "m": np.array(3)})) == ["Loop", "Identity", "Neg", "Add"]


def test_unused_nodes_are_left_to_remove_unused() -> None:
    model = trim("""g (float[n,4] x) => (float[n,4] y) {
        a, b = Split<axis=1, num_outputs=2>(x)  y = Neg(x) }""")
    assert operators(model) == ["Split", "Neg"]
