"""topological-sort, remove-unused, dedupe-initializers and fix-names."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pass_models import HEADER, content, model, operators, run

from vlmpass.ir_tools.check import check
from vlmpass.ir_tools.errors import PipelineError, Refused
from vlmpass.ir_tools.load import load
from vlmpass.ir_tools.save import save
from vlmpass.ir_tools.weights import as_weight, cast
from vlmpass.passes import parse
from vlmpass.passes.dedupe_initializers import DedupeInitializers
from vlmpass.passes.fix_names import FixNames
from vlmpass.passes.pipeline.base import Pass
from vlmpass.passes.remove_unused import RemoveUnused
from vlmpass.passes.topological_sort import TopologicalSort

X = np.array([1.5, -2.0], np.float32)
FIRST = "topological-sort,fix-names,remove-unused,dedupe-initializers,inline-functions,infer"


def idempotent(each: Pass, m: ir.Model) -> None:
    before = content(m)
    assert not each.run(m)
    assert content(m) == before


# topological-sort


def test_sort_puts_producers_first_and_keeps_the_order_of_others() -> None:
    m = model(
        """g (float[2] x) => (float[2] z) {
        d = Add(b, c)  b = Relu(x)  c = Neg(x)  z = Add(d, e)  e = Abs(x) }"""
    )
    assert TopologicalSort().run(m)
    assert operators(m) == ["Relu", "Neg", "Add", "Abs", "Add"]
    check(m)
    np.testing.assert_array_equal(run(m, {"x": X})[0], np.maximum(X, 0) - X + abs(X))
    idempotent(TopologicalSort(), m)


def test_sort_sees_what_subgraphs_and_functions_use() -> None:
    m = model(
        """g (float[2] x, bool c) => (float[2] z) {
        z = If(c) <then_branch = t () => (float[2] y) { y = Neg(a)  },
                   else_branch = e () => (float[2] w) { w = l.f(a) }>
        a = Relu(x) }
        <domain: "l", opset_import: ["" : 17]> f (p) => (r) { r = Neg(q)  q = Abs(p) }""",
        '<ir_version: 8, opset_import: ["" : 17, "l" : 1]>\n',
    )
    assert TopologicalSort().run(m)
    check(m)
    idempotent(TopologicalSort(), m)


def test_sort_leaves_a_graph_in_order_alone() -> None:
    m = model("g (float[2] x) => (float[2] z) { b = Neg(x)  a = Relu(x)  z = Add(a, b) }")
    assert not TopologicalSort().run(m)
    assert operators(m) == ["Neg", "Relu", "Add"]


def test_sort_refuses_a_circle_by_name() -> None:
    m = model(
        """g (float[2] x) => (float[2] z) {
        ["one"] a = Add(x, c)  ["two"] b = Relu(a)  ["three"] c = Neg(b)  ["four"] z = Abs(c) }"""
    )
    with pytest.raises(Refused) as caught:
        TopologicalSort().run(m)
    assert (
        "it depends on itself: node 'one' (Add) <- node 'three' (Neg) <- node 'two' (Relu) "
        "<- node 'one' (Add)"
    ) in str(caught.value)


def test_sort_takes_a_branch_that_the_caller_gives_as_it_is() -> None:
    m = model(
        """g (float[2] x, bool c) => (float[2] z) { z = l.f(c, x) }
        <domain: "l", opset_import: ["" : 17]> f (c, p) => (r) { r = Neg(q)  q = If(c) }""",
        '<ir_version: 8, opset_import: ["" : 17, "l" : 1]>\n',
    )
    (function,) = m.functions.values()
    choice = function[1]
    for name in ("then_branch", "else_branch"):
        choice.attributes.add(ir.RefAttr(name, "body", ir.AttributeType.GRAPH))
    assert TopologicalSort().run(m)
    assert [node.op_type for node in function] == ["If", "Neg"]
    assert all(attribute.is_ref() for attribute in choice.attributes.values())
    assert not TopologicalSort().run(m)


def test_sort_refuses_a_node_whose_branch_uses_it() -> None:
    m = model(
        """g (float[2] x, bool c) => (float[2] z) { ["if"] z = If(c) <
        then_branch = t () => (float[2] y) { y = Neg(z) },
        else_branch = e () => (float[2] w) { w = Abs(x) }> }"""
    )
    with pytest.raises(Refused, match="it depends on itself: node 'if'"):
        TopologicalSort().run(m)


# remove-unused


def test_unused_nodes_initializers_functions_and_imports_go() -> None:
    m = model(
        """g (float[2] x, float[2] idle) => (float[2] z) <float[2] w = {1,2}, float[2] v = {3,4}> {
        a = Relu(x)  z = l.f(x)  dead = Add(a, w)  deader = l.unused(dead) }
        <domain: "l", opset_import: ["" : 17, "m" : 1, "q" : 1]> f (p) => (r) {
            r = m.inner(p)  lost = Neg(p) }
        <domain: "m", opset_import: ["" : 17]> inner (p) => (r) { r = Neg(p) }
        <domain: "l", opset_import: ["" : 17]> unused (p) => (r) { r = Neg(p) }""",
        '<ir_version: 8, opset_import: ["" : 17, "l" : 1, "m" : 1, "ai.onnx.ml" : 3]>\n',
    )
    assert RemoveUnused().run(m)
    assert operators(m) == ["f"]
    assert [name for _, name, _ in m.functions] == ["f", "inner"]
    assert operators_of(m, "f") == ["inner"]
    assert not m.graph.initializers
    assert [value.name for value in m.graph.inputs] == ["x", "idle"]
    assert m.opset_imports == {"": 17, "l": 1, "m": 1}
    assert m.functions["l", "f", ""].opset_imports == {"": 17, "m": 1}
    check(m)
    np.testing.assert_array_equal(run(m, {"x": X, "idle": X})[0], -X)
    idempotent(RemoveUnused(), m)


def operators_of(m: ir.Model, name: str) -> list[str]:
    return [node.op_type for node in m.functions["l", name, ""]]


def test_what_a_dead_branch_kept_alive_goes_with_it() -> None:
    m = model(
        """g (float[2] x, bool c) => (float[2] z) <float[2] w = {1,2}> {
        a = Add(x, w)  z = Neg(x)
        d = If(c) <then_branch = t () => (float[2] y) { b = Neg(a)  y = Add(b, w) },
                   else_branch = e () => (float[2] u) { u = Relu(a) }> }"""
    )
    assert RemoveUnused().run(m)
    assert operators(m) == ["Neg"]
    assert not m.graph.initializers
    idempotent(RemoveUnused(), m)


def test_what_only_a_live_branch_uses_stays() -> None:
    m = model(
        """g (float[2] x, bool c) => (float[2] z) <float[2] w = {1,2}> {
        a = Add(x, w)
        z = If(c) <then_branch = t () => (float[2] y) { dead = Neg(a)  y = Neg(a) },
                   else_branch = e () => (float[2] u) { u = Relu(x) }> }"""
    )
    assert RemoveUnused().run(m)
    assert operators(m) == ["Add", "If", "Neg", "Relu"]
    check(m)


def test_inputs_outputs_and_nodes_without_outputs_stay() -> None:
    m = model(
        """g (float[2] x, float[2] d) => (float[2] z, float[2] k)
        <float[2] d = {1,2}, float[2] k = {3,4}> { z = Neg(x)  p.Print(x) }""".replace(
            "p.Print(x)", "q = p.Print(x)"
        ),
        '<ir_version: 8, opset_import: ["" : 17, "p" : 1]>\n',
    )
    m.graph[1].resize_outputs(0)
    before = content(m)
    assert not RemoveUnused().run(m)
    assert content(m) == before


# dedupe-initializers


def test_equal_initializers_become_one() -> None:
    m = model(
        """g (float[2] x, bool c) => (float[1,2] z)
        <float[2] a = {1,2}, float[2] b = {1,2}, float[1,2] shape = {1,2}, float[2] other = {1,3},
         int32[2] type = {1065353216,1073741824}> {
        p = Add(x, a)  q = Add(p, b)  t = Cast<to=1>(type)  r = Add(q, t)  s = Add(r, other)
        u = Add(s, shape)
        z = If(c) <then_branch = t () => (float[1,2] y) <float[2] inner = {1,2}>
                       { y = Add(u, inner) },
                   else_branch = e () => (float[1,2] v) { v = Neg(u) }> }"""
    )
    expected = run(m, {"x": X, "c": np.array(True)})
    assert DedupeInitializers().run(m)
    assert list(m.graph.initializers) == ["a", "shape", "other", "type"]
    (then,) = [graph for graph in m.graph.subgraphs() if graph.name == "t"]
    assert not then.initializers
    assert then[0].inputs[1] is m.graph.initializers["a"]
    check(m)
    np.testing.assert_array_equal(run(m, {"x": X, "c": np.array(True)}), expected)
    idempotent(DedupeInitializers(), m)


def test_initializers_that_are_inputs_or_outputs_stay() -> None:
    m = model(
        """g (float[2] x, float[2] i) => (float[2] z, float[2] o, float[2] o2)
        <float[2] i = {1,2}, float[2] a = {1,2}, float[2] o = {1,2}, float[2] o2 = {1,2}> {
        p = Add(x, i)  z = Add(p, a) }"""
    )
    assert DedupeInitializers().run(m)
    assert list(m.graph.initializers) == ["i", "o", "o2"]
    assert m.graph[1].inputs[1] is m.graph.initializers["o"]
    idempotent(DedupeInitializers(), m)


def test_siblings_share_nothing_and_strings_are_compared() -> None:
    m = model(
        """g (string[2] x, bool c) => (string[2] z, bool[2] w) <string[2] a = {"p","q"},
        string[2] b = {"p","q"}> {
        e = Equal(x, a)  f = Equal(x, b)  w = And(e, f)
        z = If(c) <then_branch = t () => (string[2] y) <string[2] i = {"r","s"}> {
                       y = Identity(i) },
                   else_branch = e () => (string[2] v) <string[2] j = {"r","s"}> {
                       v = Identity(j) }> }""",
        '<ir_version: 8, opset_import: ["" : 19]>\n',
    )
    assert DedupeInitializers().run(m)
    assert list(m.graph.initializers) == ["a"]
    assert [list(graph.initializers) for graph in m.graph.subgraphs()] == [["i"], ["j"]]


def test_bit_patterns_decide() -> None:
    values = [np.float32(0.0), np.float32(-0.0), np.float32("nan"), np.float32("nan")]
    m = model(
        "g (float x) => (float z) { a = Add(x, x)  b = Add(a, x)  c = Add(b, x)  z = Add(c, x) }"
    )
    for index, value in enumerate(values):
        initializer = ir.Value(name=f"w{index}", const_value=ir.tensor(np.array(value)))
        m.graph.register_initializer(initializer)
        m.graph[index].replace_input_with(1, initializer)
    assert DedupeInitializers().run(m)
    assert list(m.graph.initializers) == ["w0", "w1", "w2"]


def test_large_ones_are_compared_by_place_not_by_reading(tmp_path, monkeypatch) -> None:
    rows = np.arange(4096, dtype=np.float32)
    m = model(
        "g (float[4096] x) => (float[4096] z) { a = Add(x, x)  b = Add(a, x)  z = Add(b, x) }"
    )
    tensors = [ir.tensor(rows, name="p"), ir.tensor(rows, name="q"), ir.tensor(rows.copy())]
    for index, tensor in enumerate([tensors[0], tensors[0], tensors[2]]):
        initializer = ir.Value(name=f"w{index}", const_value=tensor)
        m.graph.register_initializer(initializer)
        m.graph[index].replace_input_with(1, initializer)
    save(m, tmp_path / "m.onnx")
    loaded = load(tmp_path / "m.onnx")
    for value in loaded.graph.initializers.values():
        assert as_weight(value.const_value).file_range() is not None
    narrow = [as_weight(value.const_value) for value in loaded.graph.initializers.values()]
    for value, weight in zip(loaded.graph.initializers.values(), narrow, strict=True):
        value.const_value = cast(weight, ir.DataType.FLOAT16)

    def unread(*_: object) -> None:
        raise AssertionError("a large weight was read")

    with monkeypatch.context() as patch:
        patch.setattr("vlmpass.ir_tools.weights.weight.byte_chunks", unread)
        assert DedupeInitializers(limit="1KB").run(loaded)
    assert list(loaded.graph.initializers) == ["w0", "w2"]
    assert DedupeInitializers().run(loaded)
    assert list(loaded.graph.initializers) == ["w0"]


def test_a_limit_that_is_no_size_is_pointed_at() -> None:
    with pytest.raises(PipelineError, match="'1 mile' is not a size"):
        parse('dedupe-initializers{limit="1 mile"}')


# fix-names


def test_missing_and_repeated_names_are_repaired() -> None:
    m = model(
        """g (float[2] x, bool c) => (float[2] z) <float[2] w = {1,2}> {
        ["n"] a = Add(x, w)  ["n"] b = Relu(a)  d = Neg(b)
        z = If(c) <then_branch = t () => (float[2] y) { k = Neg(d)  y = Abs(k) },
                   else_branch = e () => (float[2] u) { u = Neg(d) }> }"""
    )
    expected = run_unnamed(m, c=True)
    then = next(graph for graph in m.graph.subgraphs() if graph.name == "t")
    then[0].outputs[0].name = "a"
    m.graph[1].outputs[0].name = "w"
    m.graph[2].outputs[0].name = ""
    assert FixNames().run(m)
    check(m)
    names = [node.name for node in m.graph]
    assert len(set(names)) == len(names)
    assert names[0] == "n"
    assert [value.name for value in m.graph.inputs] == ["x", "c"]
    assert [value.name for value in m.graph.outputs] == ["z"]
    assert list(m.graph.initializers) == ["w"]
    np.testing.assert_array_equal(run(m, {"x": X, "c": np.array(True)}), expected)
    idempotent(FixNames(), m)


def run_unnamed(m: ir.Model, *, c: bool) -> list[np.ndarray]:
    copy = m.clone()
    FixNames().run(copy)
    return run(copy, {"x": X, "c": np.array(c)})


def test_a_graph_output_keeps_its_name_against_an_earlier_value() -> None:
    m = model('g (float[2] x) => (float[2] z) { ["r"] a = Relu(x)  ["n"] z = Neg(a) }')
    m.graph[0].outputs[0].name = "z"
    assert FixNames().run(m)
    assert [node.outputs[0].name for node in m.graph] == ["z_1", "z"]
    check(m)


def test_an_initializer_that_is_an_input_is_one_value() -> None:
    m = model("g (float[2] x, float[2] w = {1,2}) => (float[2] z) { z = Add(x, w) }")
    assert FixNames().run(m)
    assert list(m.graph.initializers) == ["w"]
    check(m)


def test_an_absent_output_stays_absent() -> None:
    m = model('g (float[2] x) => (float[2] z) { ["d"] z, "" = Dropout(x) }')
    assert not FixNames().run(m)
    assert m.graph[0].outputs[1].name == ""


def test_functions_keep_their_signature() -> None:
    m = model(
        """g (float[2] x) => (float[2] z) { ["c"] z = l.f(x) }
        <domain: "l", opset_import: ["" : 17]> f (p) => (r) { ["i"] q = Neg(p)  ["j"]
            r = Abs(q) }""",
        '<ir_version: 8, opset_import: ["" : 17, "l" : 1]>\n',
    )
    function = m.functions["l", "f", ""]
    function[0].outputs[0].name = "p"
    assert FixNames().run(m)
    assert [value.name for value in (*function.inputs, *function.outputs)] == ["p", "r"]
    check(m)
    np.testing.assert_array_equal(run(m, {"x": X})[0], abs(X))


def test_two_inputs_of_one_name_are_refused() -> None:
    m = model("g (float[2] x, float[2] y) => (float[2] z) { z = Add(x, y) }")
    m.graph.inputs[1].name = "x"
    with pytest.raises(Refused, match="two of the inputs, outputs and initializers"):
        FixNames().run(m)


# all of them on random graphs


@st.composite
def graphs(draw: st.DrawFn) -> ir.Model:
    """Random graphs: shared and dead values, equal constants, functions, branches, bad names."""
    values = ["x"]
    lines = []
    for index in range(draw(st.integers(1, 10))):
        a, b = draw(st.sampled_from(values)), draw(st.sampled_from([*values, "w", "v", "u"]))
        kind = draw(st.sampled_from(["Add", "Mul", "Relu", "If", "l.f"]))
        if kind == "If":
            text = (
                f"If(c) <then_branch = t () => (float[2] t{index}) {{ t{index} = Add({a}, {b}) }}"
            )
            text += f", else_branch = e () => (float[2] e{index}) {{ e{index} = Neg({a}) }}>"
        else:
            text = f"{kind}({a})" if kind == "Relu" else f"{kind}({a}, {b})"
        lines.append(f"n{index} = {text}")
        values.append(f"n{index}")
    lines.append(f"z = Neg({draw(st.sampled_from(values))})")
    m = model(
        "g (float[2] x, bool c) => (float[2] z) "
        "<float[2] w = {1,2}, float[2] v = {1,2}, float[2] u = {2,1}> { " + " ".join(lines) + " }\n"
        '<domain: "l", opset_import: ["" : 17]> f (p, q) => (r) { s = Mul(p, q)  r = Add(s, p) }',
        HEADER.replace("]", ', "l" : 1]'),
    )
    for node in m.graph:
        node.name = draw(st.sampled_from(["", "same", node.op_type]))
    return m


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(graphs(), st.permutations(FIRST.split(",")), st.booleans())
def test_any_order_keeps_the_numbers_and_a_second_run_changes_nothing(
    m: ir.Model, order: list[str], c: bool
) -> None:
    inputs = {"x": X, "c": np.array(c)}
    expected = run_unnamed(m, c=c)
    FixNames().run(m)
    for each in parse(",".join(order)):
        each.run(m)
        check(m)
        idempotent(each, m)
    np.testing.assert_allclose(run(m, inputs), expected, rtol=1e-6)
