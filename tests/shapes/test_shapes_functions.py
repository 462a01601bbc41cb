"""Types and shapes inside functions: what holds at every call of them, and nothing else."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

from vlmpass.ir_tools.check import check
from vlmpass.ir_tools.errors import CheckError
from vlmpass.ir_tools.graph.names import Names
from vlmpass.ir_tools.graph.tape import Tape
from vlmpass.ir_tools.graph.walk import Scope
from vlmpass.ir_tools.load import load
from vlmpass.ir_tools.save import save
from vlmpass.ir_tools.shapes import facts_of, visit_scope
from vlmpass.ir_tools.shapes.inferred_functions import last_axes
from vlmpass.passes.infer import Infer
from vlmpass.passes.inline_functions import InlineFunctions
from vlmpass.rewriter_rules.simplify.known import dim, rank

HEADER = '<ir_version: {}, opset_import: ["" : 18, "local" : 1]>\n'
FUNCTION = '<opset_import: ["" : 18, "local" : 1], domain: "local">\n'
SUM = FUNCTION + "Sum (a, b) => (c) { t = Transpose<perm=[1,0]>(b) s = MatMul(a, t) c = Relu(s) }"
KEEP = FUNCTION + "Keep (a) => (c) { t = Neg(a) c = Abs(t) }"


def model(graph: str, *functions: str, ir_version: int = 10) -> ir.Model:
    text = HEADER.format(ir_version) + "\n".join([graph, *functions])
    return ir.serde.from_proto(onnx.parser.parse_model(text))


def said(m: ir.Model, name: str) -> dict[str, str]:
    """Return what is declared for the values of a function."""
    (function,) = (each for each in m.functions.values() if each.name == name)
    values = [*function.inputs, *(value for node in function.all_nodes() for value in node.outputs)]
    return {value.name or "": f"{value.dtype or '?'}{_dims(value)}" for value in values}


def _dims(value: ir.Value) -> str:
    if value.shape is None:
        return " of any rank"
    return str([dim if isinstance(dim, int) else dim.value for dim in value.shape])


def test_one_call_gives_its_types_and_shapes() -> None:
    m = model("g (float[n,3] x, float[4,3] y) => (float[n,4] z) { z = local.Sum(x, y) }", SUM)
    assert Infer().run(m)
    assert said(m, "Sum") == {
        "a": "FLOAT['n', 3]",
        "b": "FLOAT[4, 3]",
        "t": "FLOAT[3, 4]",
        "s": "FLOAT['n', 4]",
        "c": "FLOAT['n', 4]",
    }
    assert not Infer().run(m)


CALLS = {
    "equal": ("float[n,3] x, float[n,3] y", "FLOAT['n', 3]"),
    "sizes": ("float[2,3] x, float[4,3] y", "FLOAT[None, 3]"),
    "names": ("float[n,3] x, float[m,3] y", "FLOAT[None, 3]"),
    "name and size": ("float[n,3] x, float[4,3] y", "FLOAT[None, 3]"),
    "unnamed": ("float[?,3] x, float[?,3] y", "FLOAT[None, 3]"),
    "ranks": ("float[n,3] x, float[n] y", "FLOAT of any rank"),
    "types": ("float[n,3] x, double[n,3] y", "?"),
    "rank unknown": ("float[n,3] x, float y", None),
}


@pytest.mark.parametrize(("inputs", "known"), CALLS.values(), ids=CALLS)
def test_two_calls_give_what_they_agree_on(inputs: str, known: str | None) -> None:
    m = model(f"g ({inputs}) => (v, w) {{ v = local.Keep(x) w = local.Keep(y) }}", KEEP)
    if known is None:
        m.graph.inputs[1].shape, known = None, "FLOAT of any rank"
    Infer().run(m)
    assert {text.removesuffix(" of any rank") for text in said(m, "Keep").values()} == {
        known.removesuffix(" of any rank")
    }


def last_sizes(m: ir.Model, value: ir.Value) -> list[int | str | None]:
    """The last three sizes, as a rule is told them."""
    op = Tape(Names.of(m), m.opset_imports, "new", last_axes=last_axes(m))
    return [dim(op, value, axis) for axis in (-3, -2, -1)]


def test_calls_that_differ_in_rank_may_agree_on_the_last_axes() -> None:
    m = model(
        """g (float[2,n,8] x, float[n,8] y, float[8] z) => (u, v, w) {
        u = local.Keep(x) v = local.Keep(y) w = local.Keep(z) }""",
        KEEP,
    )
    Infer().run(m)
    (function,) = m.functions.values()
    value = function.inputs[0]
    assert value.shape is None
    assert last_sizes(m, value) == [None, None, 8]
    assert rank(value) is None
    m.graph.remove(m.graph[2], safe=False)
    Infer().run(m)
    assert last_sizes(m, value) == [None, "n", 8]
    m.graph.remove(m.graph[1], safe=False)
    Infer().run(m)
    assert _dims(value) == "[2, 'n', 8]"
    assert not last_axes(m)
    assert last_sizes(m, value) == [2, "n", 8]


def test_what_calls_differ_in_is_forgotten_even_where_it_is_declared() -> None:
    m = model(
        "g (float[2,3] x, float[4,3] y) => (v, w) { v = local.Keep(x) w = local.Keep(y) }",
        KEEP.replace("(c) {", "(c) <float[2,3] t, float[2] c> {"),
    )
    assert said(m, "Keep")["t"] == "FLOAT[2, 3]"
    assert Infer().run(m)
    assert set(said(m, "Keep").values()) == {"FLOAT[None, 3]"}


def test_declared_numbers_stay_where_the_calls_leave_a_size_open() -> None:
    """The function's own names go: they would pass for those of the model's inputs."""
    m = model(
        "g (float[n,3] x) => (v) { v = local.Keep(x) }",
        FUNCTION + "Keep (a) => (c) <float[4,k] t> { t = local.unknown(a) c = Abs(t) }",
    )
    Infer().run(m)
    assert said(m, "Keep")["t"] == "FLOAT[4, None]"


def test_one_refuted_size_makes_the_others_of_the_function_stale() -> None:
    m = model(
        "g (float[n,3] x) => (v) { v = local.Keep(x) }",
        FUNCTION
        + """Keep (a) => (c) <float[4,4] t, float[2,8] u> {
        t = Neg(a) u = local.unknown(t) c = Abs(u) }""",
    )
    Infer().run(m)
    assert said(m, "Keep")["t"] == "FLOAT['n', 3]"
    assert said(m, "Keep")["u"] == "FLOAT of any rank"


OUTER = FUNCTION + "Outer (a) => (c) { t = local.Keep(a) u = Transpose(t) c = local.Keep(u) }"


def test_nested_calls_count_wherever_they_lie() -> None:
    m = model("g (float[n,3] x) => (y) { y = local.Outer(x) }", KEEP, OUTER)
    Infer().run(m)
    assert said(m, "Outer") == {
        "a": "FLOAT['n', 3]",
        "t": "FLOAT['n', 3]",
        "u": "FLOAT[3, 'n']",
        "c": "FLOAT[3, 'n']",
    }
    assert set(said(m, "Keep").values()) == {"FLOAT[None, None]"}


def test_calls_in_subgraphs_count_and_values_in_them_are_inferred() -> None:
    inner = FUNCTION + (
        "Pick (k, a) => (c) { c = If (k) <then_branch = then () => (t) { t = Neg(a) },"
        " else_branch = other () => (e) { f = Abs(a) e = local.Keep(f) }> }"
    )
    m = model(
        "g (bool k, float[n,3] x) => (y, z) { y = local.Pick(k, x) z = local.Keep(x) }", KEEP, inner
    )
    Infer().run(m)
    assert set(said(m, "Keep").values()) == {"FLOAT['n', 3]"}
    pick = said(m, "Pick")
    assert pick.pop("k") == "BOOL[]"
    assert set(pick.values()) == {"FLOAT['n', 3]"}


def test_a_function_that_nothing_calls_gets_no_shapes() -> None:
    """Nor does one that only such a function calls; what it declares stays."""
    declared = FUNCTION + "Own (a) => (c) <float[2,k] t> { t = Neg(a) c = local.Keep(t) }"
    m = model("g (float[n,3] x) => (y) { y = Neg(x) }", KEEP, declared)
    Infer().run(m)
    assert said(m, "Own")["t"] == "FLOAT[2, 'k']"
    assert all(text.endswith("of any rank") for text in said(m, "Keep").values())


def test_inputs_that_a_call_leaves_out_are_open() -> None:
    text = FUNCTION + "Two (a, b) => (c) { t = Neg(a) u = Neg(b) c = Add(t, u) }"
    m = model("g (float[n,3] x) => (y, z) { y = local.Two(x, x) z = local.Two(x) }", text)
    Infer().run(m)
    two = said(m, "Two")
    assert two["t"] == "FLOAT['n', 3]"
    assert two["u"].endswith(" of any rank")


def test_functions_that_call_themselves_are_refused() -> None:
    there = FUNCTION + "There (a) => (c) { c = local.Back(a) }"
    back = FUNCTION + "Back (a) => (c) { c = local.There(a) }"
    m = model("g (float[n,3] x) => (y) { y = local.There(x) }", there, back)
    with pytest.raises(CheckError, match="functions call themselves: local::There -> local::Back"):
        Infer().run(m)


def test_a_body_is_looked_at_once_for_all_calls_that_are_alike() -> None:
    """Twenty functions, each calling the next one twice, are twenty bodies and not a million."""
    chain = [
        FUNCTION + f"F{at} (a) => (c) {{ t = local.F{at + 1}(a) c = local.F{at + 1}(t) }}"
        for at in range(20)
    ]
    last = KEEP.replace("Keep", "F20")
    m = model("g (float[n,3] x) => (y) { y = local.F0(x) }", *chain, last)
    facts = facts_of(m)
    visit_scope(facts, Scope(m.graph, m.graph, 0), lambda node, scope: None)
    assert len(facts.bodies) == 21
    Infer().run(m)
    assert set(said(m, "F20").values()) == {"FLOAT['n', 3]"}


BLOCK = """g (float[b,s,4] x, float[b,t,4] y, float[4,4] w) => (p, q, r) {
    [one] p = local.Block(x, w) [two] q = local.Block(y, w) [three] r = local.Mix(x, y, w)
}"""
BODIES = (
    FUNCTION
    + """Block (x, w) => (z) { a = MatMul(x, w) [heads] h = local.Heads(a) k = Add(x, h)
    z = Neg(k) }""",
    FUNCTION
    + """Heads (x) => (m) { d = Constant<value_ints=[0,0,2,2]>() i = Reshape(x, d)
    t = Transpose<perm=[0,2,1,3]>(i) u = Transpose<perm=[0,2,1,3]>(t) s = Shape(x)
    m = Reshape(u, s) }""",
    FUNCTION
    + """Mix (x, y, w) => (f) { c = Concat<axis=1>(x, y) [block] e = local.Block(c, w)
    f = Softmax(e) }""",
)


def test_what_is_said_holds_when_it_runs() -> None:
    """Every value of every call has the shape that is declared for it in its function."""
    m = model(BLOCK, *BODIES)
    Infer().run(m)
    declared = {
        value.name: value.shape
        for function in m.functions.values()
        for node in function
        for value in node.outputs
    }
    InlineFunctions().run(m)
    made = {value.name: value for node in m.graph for value in node.outputs}
    m.graph.outputs.extend([made[name] for name in made if name not in ("p", "q", "r")])
    proto = ir.to_proto(m)
    for value in proto.graph.output:
        value.ClearField("type")
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    shapes = {"x": (2, 3, 4), "y": (2, 5, 4), "w": (4, 4)}
    results = session.run(
        None, {name: np.ones(sizes, np.float32) for name, sizes in shapes.items()}
    )
    for value, result in zip(m.graph.outputs[3:], results[3:], strict=True):
        name = value.name or ""
        shape = declared[name.rpartition("/")[2]]
        assert shape is not None
        assert len(result.shape) == len(shape)
        for size, axis in zip(result.shape, shape, strict=True):
            wanted = axis if isinstance(axis, int) else axis.evaluate({"b": 2, "s": 3, "t": 5})
            assert wanted in (size, None), name


@pytest.mark.parametrize("ir_version", [8, 9, 10])
def test_the_written_model_is_valid_and_runs(tmp_path: Path, ir_version: int) -> None:
    """Before IR version 10 functions hold no types of values: they lie beside the graph's."""
    m = model(BLOCK, *BODIES, ir_version=ir_version)
    Infer().run(m)
    check(m)
    save(m, tmp_path / "m.onnx")
    onnx.checker.check_model(str(tmp_path / "m.onnx"), full_check=True)
    again = load(tmp_path / "m.onnx")
    assert said(again, "Heads") == said(m, "Heads")
    written = onnx.load(tmp_path / "m.onnx", load_external_data=False).functions
    assert all(bool(function.value_info) == (ir_version >= 10) for function in written)
    session = onnxruntime.InferenceSession(str(tmp_path / "m.onnx"))
    feed = {name: np.ones((2, 3, 4), np.float32) for name in "xy"}
    assert session.run(None, {**feed, "w": np.eye(4, dtype=np.float32)})[0].shape == (2, 3, 4)


def test_the_order_of_calls_and_functions_does_not_matter() -> None:
    texts = []
    for order in itertools.permutations(BODIES):
        m = model(BLOCK, *order)
        Infer().run(m)
        texts.append({name: said(m, name) for name in ("Block", "Heads", "Mix")})
    assert all(text == texts[0] for text in texts)
