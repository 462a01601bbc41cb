"""inline-functions: numbers, names, attributes, metadata, opsets."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from pass_models import content, model, operators, run

from vlmpass.ir_tools.check import check
from vlmpass.ir_tools.errors import CheckError, Refused
from vlmpass.passes.inline_functions import InlineFunctions
from vlmpass.passes.pipeline.base import OptionError

X = np.array([1.5, -2.0], np.float32)
IMPORTS = '<ir_version: 8, opset_import: ["" : 17, "l" : 1]>\n'
LEAKY = """<domain: "l", opset_import: ["" : 17]> leaky <slope: float = 0.5, other> (p) => (r) {
    ["relu"] r = LeakyRelu<alpha: float = @slope>(p) }"""


def inlined(text: str, only: tuple[str, ...] = ()) -> ir.Model:
    """Inline, check everything that always holds, and return the result."""
    m = model(text, IMPORTS)
    inputs = {"x": X} if len(m.graph.inputs) == 1 else {"x": X, "c": np.array(True)}
    expected = run(m, inputs)
    assert InlineFunctions(only).run(m)
    check(m)
    for got, want in zip(run(m, inputs), expected, strict=True):
        np.testing.assert_array_equal(got, want)
    before = content(m)
    if not only:
        assert not m.functions
        assert not InlineFunctions().run(m)
    assert content(m) == before
    return m


def test_nested_calls_become_nodes_named_after_the_call() -> None:
    m = inlined(
        """g (float[2] x) => (float[2] z) { ["call"] a = l.outer(x)  ["again"] z = l.outer(a) }
        <domain: "l", opset_import: ["" : 17, "l" : 1]> outer (p) => (r) {
            ["in"] q = l.inner(p)  ["neg"] r = Neg(q) }
        <domain: "l", opset_import: ["" : 17]> inner (p) => (r) { ["exp"] q = Exp(p)
            ["abs"] r = Abs(q) }"""
    )
    assert operators(m) == ["Exp", "Abs", "Neg"] * 2
    assert [node.name for node in m.graph][:3] == ["call/in/exp", "call/in/abs", "call/neg"]
    assert [value.name for node in m.graph for value in node.outputs] == [
        "call/in/q",
        "call/q",
        "a",
        "again/in/q",
        "again/q",
        "z",
    ]


def test_attributes_come_from_the_call_or_the_default() -> None:
    m = inlined(
        """g (float[2] x) => (float[2] z) {
            a = l.leaky(x)  b = l.leaky<slope = 0.25>(x)  z = Add(a, b) }"""
        + LEAKY
    )
    assert [node.attributes["alpha"].as_float() for node in list(m.graph)[:2]] == [0.5, 0.25]


def test_an_attribute_nobody_gives_is_left_to_the_operator() -> None:
    m = inlined(
        """g (float[2] x) => (float[2] z) { z = l.f(x) }
        <domain: "l", opset_import: ["" : 17]> f <slope> (p) => (r) {
            r = LeakyRelu<alpha: float = @slope>(p) }"""
    )
    assert not m.graph[0].attributes


def test_an_attribute_passes_through_two_calls() -> None:
    m = inlined(
        """g (float[2] x) => (float[2] z) { z = l.f<given = 0.25>(x) }
        <domain: "l", opset_import: ["" : 17, "l" : 1]> f <given> (p) => (r) {
            r = l.leaky<slope: float = @given>(p) }"""
        + LEAKY
    )
    assert m.graph[0].attributes["alpha"].as_float() == 0.25


def test_a_graph_given_as_attribute_is_copied_for_each_use() -> None:
    m = model(
        """g (float[2] x, bool c) => (float[2] z) {
            ["call"] z = l.f<body = b () => (float[2] y) { ["n"] k = Neg(x)  y = Abs(k) }>(x, c) }
        <domain: "l", opset_import: ["" : 17]> f <body> (p, q) => (r) {
            ["if"] r = If<then_branch: graph = @body, else_branch: graph = @body>(q) }""",
        IMPORTS,
    )
    assert InlineFunctions().run(m)
    check(m)
    np.testing.assert_array_equal(run(m, {"x": X, "c": np.array(True)})[0], abs(X))
    names = [value.name for node in m.graph.all_nodes() for value in node.outputs]
    assert len(set(names)) == len(names)


def test_absent_inputs_and_unused_outputs() -> None:
    m = inlined(
        """g (float[2] x) => (float[2] z) {
            o = Constant<value_float = 1.0>()  a, b = l.f(x)  c, e = l.f(x, "", o)
            d = Add(b, c)  z = Add(a, d) }
        <domain: "l", opset_import: ["" : 17]> f (p, low, high) => (r, s) {
            r = Clip(p, low, high)  s = Neg(p) }"""
    )
    assert [[value and value.name for value in node.inputs] for node in m.graph][1:5] == [
        ["x"],
        ["x"],
        ["x", None, "o"],
        ["x"],
    ]


def test_an_output_that_is_an_input_or_given_twice() -> None:
    text = """g (float[2] x) => (float[2] z, float[2] y, float[2] w) {
            a = Relu(x)  z, y = l.f(a)  w = l.g(x) }
        <domain: "l", opset_import: ["" : 17]> f (p) => (r, s) {
            q = Neg(p)  r = Identity(q)  s = Identity(q) }
        <domain: "l", opset_import: ["" : 17]> g (p) => (r) { r = Identity(p) }"""
    m = model(text, IMPORTS)
    expected = run(m, {"x": X})
    f, g = m.functions["l", "f", ""], m.functions["l", "g", ""]
    for function in (f, g):  # what the identities stand for: a runtime would not load it so
        for index, value in enumerate(list(function.outputs)):
            node = value.producer()
            assert node is not None
            source = node.inputs[0]
            assert source is not None
            function.outputs[index] = source
            function.remove(node, safe=True)
    assert InlineFunctions().run(m)
    check(m)
    assert [value.name for value in m.graph.inputs] == ["x"]
    for got, want in zip(run(m, {"x": X}), expected, strict=True):
        np.testing.assert_array_equal(got, want)


def test_calls_in_branches_and_branches_in_functions() -> None:
    m = inlined(
        """g (float[2] x, bool c) => (float[2] z) {
            z = If(c) <then_branch = t () => (float[2] y) { y = l.f(x, c) },
                       else_branch = e () => (float[2] u) { k = l.f(x, c)  u = Neg(k) }> }
        <domain: "l", opset_import: ["" : 17]> f (p, q) => (r) {
            k = Neg(p)
            r = If(q) <then_branch = t2 () => (float[2] y2) { k2 = Neg(k)  y2 = Add(k2, p) },
                       else_branch = e2 () => (float[2] u2) { u2 = Neg(k) }> }"""
    )
    names = [value.name for node in m.graph.all_nodes() for value in node.outputs]
    assert len(set(names)) == len(names)


def test_metadata_of_the_call_goes_to_nodes_without_their_own() -> None:
    m = model('g (float[2] x) => (float[2] z) { ["call"] z = l.leaky(x) }' + LEAKY, IMPORTS)
    m.graph[0].metadata_props.update({"scope": "layers.0", "kind": "call"})
    m.functions["l", "leaky", ""][0].metadata_props["kind"] = "body"
    m.graph[0].outputs[0].metadata_props["of"] = "value"
    assert InlineFunctions().run(m)
    assert m.graph[0].metadata_props == {"scope": "layers.0", "kind": "body"}
    assert m.graph.outputs[0].metadata_props == {"of": "value"}


def test_sizes_named_in_a_function_are_its_own() -> None:
    m = model(
        "g (float[a] x, float[b] y) => (float[a] z, float[b] w) { "
        '["s"] z = l.f(x)  ["t"] w = l.f(y) }'
        '<domain: "l", opset_import: ["" : 17]> f (p) => (r) { q = Neg(p)  r = Abs(q) }',
        IMPORTS,
    )
    inner = m.functions["l", "f", ""][0].outputs[0]
    inner.type, inner.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape(["n"])
    assert InlineFunctions().run(m)
    shapes = [node.outputs[0].shape for node in m.graph if node.op_type == "Neg"]
    dims = [dim for shape in shapes for dim in shape or ()]
    assert [dim.value for dim in dims] == [None, None]  # type: ignore[union-attr]


def test_only_the_named_functions() -> None:
    text = """g (float[2] x) => (float[2] z) { a = l.f(x)  z = l.leaky(a) }
        <domain: "l", opset_import: ["" : 17, "l" : 1]> f (p) => (r) { r = l.leaky(p) }"""
    m = inlined(text + LEAKY, only=("l::leaky",))
    assert operators(m) == ["f", "LeakyRelu"]
    assert [name for _, name, _ in m.functions] == ["f"]
    with pytest.raises(OptionError, match="the model has no function nope"):
        InlineFunctions(("nope",)).run(model(text + LEAKY, IMPORTS))


OPSETS = """g (float[2] x) => (float[2] z) {{ ["call"] z = l.f(x) }}
    <domain: "l", opset_import: ["" : {version}, "q" : 1]> f (p) => (r) {{
        ["body"] r = {operator}(p) }}"""


def test_another_opset_where_the_operator_is_the_same() -> None:
    m = model(OPSETS.format(version=15, operator="Neg"), IMPORTS)
    assert InlineFunctions().run(m)
    assert m.opset_imports == {"": 17, "l": 1, "q": 1}
    check(m)


def test_another_opset_where_the_operator_differs_is_refused_untouched() -> None:
    m = model(OPSETS.format(version=20, operator="ReduceMax"), IMPORTS)
    before = content(m)
    with pytest.raises(Refused) as caught:
        InlineFunctions().run(m)
    assert "node 'body' (ReduceMax) of function l::f: it is of opset 20 and would come to" in str(
        caught.value
    )
    assert "run convert-opset{to=20} or convert-opset{to=17} first" in str(caught.value)
    assert content(m) == before


def test_functions_that_call_themselves_are_refused() -> None:
    m = model(
        """g (float[2] x) => (float[2] z) { z = l.f(x) }
        <domain: "l", opset_import: ["" : 17, "l" : 1]> f (p) => (r) { r = l.f(p) }""",
        IMPORTS,
    )
    with pytest.raises(CheckError, match="functions call themselves: l::f -> l::f"):
        InlineFunctions().run(m)
