"""Every pass that changes types leaves no conflict behind, in subgraphs and functions neither."""

from __future__ import annotations

import onnx_ir as ir
import pytest
from dtype_tools import EXPORTS, check, parse

from vlmpass.ir_tools.errors import Refused
from vlmpass.ir_tools.graph.walk import all_values
from vlmpass.ir_tools.operators.type_texts import spell
from vlmpass.ir_tools.types import solve
from vlmpass.ir_tools.types.cast_nodes import Casts
from vlmpass.ir_tools.types.emulate import emulate
from vlmpass.passes.dtype.mixed_precision import MixedPrecision
from vlmpass.passes.dtype.repair_types import RepairTypes
from vlmpass.passes.dtype.unify_dtype import UnifyDtype
from vlmpass.passes.pipeline.base import Pass

PASSES = [
    UnifyDtype(),
    UnifyDtype(keep_io=True),
    UnifyDtype(to="float16", from_=("float32", "bfloat16")),
    UnifyDtype(to="bfloat16", from_=("float32", "float16"), keep_io=True),
    MixedPrecision(),
    MixedPrecision(to="bfloat16", keep_io=True),
]

# Functions in functions, called with two types; subgraphs that take outer values; carried values,
# sequences, and operators that keep what the types around them do.
NESTED = """g (int64 n, bool c, FLOAT[2] x, int64[2] p) => (FLOAT[2] y, FLOAT[2] z, float[2] u) {
    k = Constant<value = float[2] {1.5, 2.5}>()
    o = Loop (n, c, x) <body = b (int64 i, bool t, s) => (t2, s2) {
        t2 = Identity(t)
        h = my.Outer(s)
        s2 = If (t) <then_branch = l () => (q) { e = Softmax(h) q = Add(e, x) },
                     else_branch = r () => (w) { w = Identity(h) }> }>
    a = my.Scale(k)
    v = Cast<to=1>(o) j = Mul(a, v) u = my.Outer(j)
    f = Cast<to=1>(p) d = Mul(f, k) fl = Floor(d) gi = Cast<to=7>(fl) gf = CastLike(gi, x)
    SEQUENCE
    y = Add(at, o) z = my.Scale(o) }"""
SEQUENCE = "sq = SequenceConstruct(o, gf) one = Constant<value_int=1>() at = SequenceAt(sq, one)"
FUNCTIONS = """
<domain: "my", opset_import: ["": 18, "my": 1]>
Scale (a) => (b) { c = Constant<value = float {0.5}>() d = CastLike(c, a) b = Mul(a, d) }
<domain: "my", opset_import: ["": 18, "my": 1]>
Outer (a) => (b) { s = my.Scale(a) r = ReduceMean<keepdims=1>(s) b = Sub(a, r) }
"""


def nested(kind: str) -> ir.Model:
    # There are no sequences of bfloat16 tensors.
    text = NESTED.replace("SEQUENCE", "at = Identity(gf)" if kind == "bfloat16" else SEQUENCE)
    return parse(text.replace("FLOAT", kind), extra=FUNCTIONS)


def assert_well_typed(model: ir.Model) -> None:
    typing = solve(model)
    assert [str(conflict) for conflict in typing.conflicts] == []
    for each in all_values(model):
        text = typing.text_of(each)
        assert text is None or spell(each.type) in (text, None), each.name
    check(model)


@pytest.mark.parametrize("kind", ["float", "float16", "bfloat16"])
@pytest.mark.parametrize("pass_", PASSES, ids=str)
def test_postcondition_functions_and_subgraphs(pass_: Pass, kind: str) -> None:
    model = nested(kind)
    assert [str(conflict) for conflict in solve(model).conflicts] == []
    pass_.run(model)
    assert_well_typed(model)
    assert not pass_.run(model)


@pytest.mark.parametrize("pass_", PASSES, ids=str)
@pytest.mark.parametrize(
    "name",
    ["decoder.bfloat16.dyn23", "decoder.float32.ts17", "text.float16.ts17", "vision.bfloat16.ts17"],
)
def test_postcondition_exports(name: str, pass_: Pass) -> None:
    model = ir.load(EXPORTS / f"{name}.onnx")
    RepairTypes().run(model)
    assert_well_typed(model)
    pass_.run(model)
    assert_well_typed(model)


@pytest.mark.parametrize(
    "pass_",
    [
        UnifyDtype(to="float16", from_=("float32",), keep_io=True),
        MixedPrecision(keep_io=True),
        RepairTypes(),
    ],
    ids=str,
)
@pytest.mark.parametrize(
    ("graph", "extra"),
    [
        ("{ s = Relu(x) y = Add(s, H) }", ""),
        (
            """{ y = If (c) <then_branch = t () => (a) { a = Add(x, H) },
            else_branch = e () => (b) { b = Identity(x) }> }""",
            "",
        ),
        (
            "{ y = my.F(x, H) }",
            '<domain: "my", opset_import: ["": 18]> F (a, b) => (d) { d = Add(a, b) }',
        ),
    ],
    ids=["graph", "subgraph", "function"],
)
def test_postcondition_is_enforced(
    pass_: Pass, graph: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pass that forgot its Casts would be stopped, wherever the conflict is."""
    other = "h" if isinstance(pass_, RepairTypes) else "x"
    model = parse(
        f"g (float[2] x, float16[2] h, bool c) => (float[2] y) {graph.replace('H', other)}",
        extra=extra,
    )
    monkeypatch.setattr(Casts, "to", lambda self, value, *_, **__: value)
    with pytest.raises(Refused, match=r"Add|y"):
        pass_.run(model)


def test_postcondition_of_emulation() -> None:
    model = nested("float16")
    assert emulate(model, ir.DataType.FLOAT16)
    assert_well_typed(model)
