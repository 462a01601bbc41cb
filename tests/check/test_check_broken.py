"""check() faults a broken model at the right node, in plain words."""

from __future__ import annotations

import onnx_ir as ir
import pytest
from check_models import H17, HFN, model, said

from vlmpass.ir_tools.check import check

BROKEN = [
    # types and shapes, found by the onnx checker
    (
        H17 + "g (float[2] x, float16[2] y) => (float[2] z) { ['n'] z = Add(x, y) }",
        "node 'n' (Add): its inputs are bound to different types: 'x' float[2], 'y' float16[2]; "
        "run repair-types",
    ),
    (
        H17 + "g (bfloat16[1,3,8,8] x, bfloat16[4,3,2,2] w) => (bfloat16[n,c,h,w] z) {"
        " ['c'] z = Conv(x, w) }",
        "node 'c' (Conv): its X may not be bfloat16 at this opset; convert to opset 22 or later",
    ),
    (
        H17 + "g (float[2] x) => (float16[2] z) { ['r'] z = Relu(x) }",
        "node 'r' (Relu): it makes float, but float16 is declared",
    ),
    (
        H17 + "g (float[2] x) => (float[2] z) <float[5] a> { ['r'] a = Relu(x)  z = Neg(a) }",
        "node 'r' (Relu): it makes 2 in dimension 0, but 5 is declared (and 1 more fault)",
    ),
    (
        H17 + "g (float[2] x) => (float[2,1] z) { ['r'] z = Relu(x) }",
        "node 'r' (Relu): it makes rank 1, but rank 2 is declared",
    ),
    (
        H17 + "g (float[2,3] x, float[4,5] y) => (float[2,5] z) { ['m'] z = MatMul(x, y) }",
        "node 'm' (MatMul): Incompatible dimensions for matrix multiplication",
    ),
    (
        H17 + "g (float[2] x) => (float[n] z) { ['g'] z = Gelu(x) }",
        "node 'g' (Gelu): Gelu does not exist in opset 17; it does from opset 20 on",
    ),
    (
        H17 + "g (float[2] x) => (float[n] z) { ['g'] z = Upsample(x, x) }",
        "node 'g' (Upsample): Upsample no longer exists in opset 17; it does up to opset 9",
    ),
    (
        H17 + "g (float[2] x) => (float[n] z) { ['g'] z = Frobnicate(x) }",
        "node 'g' (Frobnicate): there is no operator Frobnicate in domain 'ai.onnx'",
    ),
    (
        H17 + "g (float[2] x) => (float[n] z) { ['r'] z = Relu(x, x) }",
        "node 'r' (Relu): it has 2 inputs, Relu takes 1",
    ),
    (
        H17 + "g (float[2] x) => (float[n] z) { ['c'] z = Cast(x) }",
        "node 'c' (Cast): Required attribute 'to' is missing",
    ),
    (
        H17 + "g (float[2] x) => (float[n] z) { ['r'] z = Relu<alpha = 1.0>(x) }",
        "node 'r' (Relu): Unrecognized attribute: alpha for operator Relu",
    ),
    (
        HFN + "g (float[2] x, float16[2] y) => (float[n] z) { ['call'] z = l.f(x, y) }"
        "<domain: 'l', opset_import: ['' : 17]> f (p, q) => (r) { ['in'] r = Add(p, q) }",
        "node 'in' (Add): its inputs are bound to different types: 'p' ?, 'q' ?",
    ),
    # structure, found before
    (
        H17 + "g (float[2] x) => (float[2] z) { ['n'] z = Neg(a)  ['r'] a = Relu(x) }",
        "node 'n' (Neg): input 0, 'a', is made later, by node 'r' (Relu); run topological-sort",
    ),
    (
        H17
        + "g (float[2] x, bool c) => (float[2] z) { z = If(c) <then_branch = t () => (float[2] y) "
        "{ ['in'] y = Neg(a) }, else_branch = e () => (float[2] w) { w = Neg(x) }> "
        "['r'] a = Relu(x) }",
        "node 'in' (Neg): input 0, 'a', is made later, by node 'r' (Relu); run topological-sort",
    ),
    (
        H17 + "g (float[2] x) => (float[2] z) { ['n'] a = Neg(x)  ['n'] z = Relu(a) }",
        "node 'n' (Relu): another node beside it has the same name; run fix-names",
    ),
    (
        H17 + "g (float[2] x) => (float[2] z) { ['n'] z = com.Some(x) }",
        "node 'n' (com:Some): the graph imports no opset of its domain 'com'",
    ),
    (
        HFN + "g (float[2] x) => (float[2] z) { ['n'] z = l.f(x) }"
        "<domain: 'l', opset_import: ['q' : 1]> f (p) => (r) { ['in'] r = Neg(p) }",
        "node 'in' (Neg): function l::f imports no opset of its domain 'ai.onnx'",
    ),
    (
        H17
        + "g (float[2] x, bool c) => (float[n] z) { a = Relu(x)  z = If(c) <then_branch = t () => "
        "(float[2] y) { ['in'] a = Neg(x)  y = Neg(a) }, else_branch = e () => (float[2] w) "
        "{ w = Neg(a) }> }",
        "node 'in' (Neg): output 0, 'a', has the name of another value in sight; run fix-names",
    ),
    (
        HFN + "g (float[2] x) => (float[n] z) { ['n'] z = l.f(x, x) }"
        "<domain: 'l', opset_import: ['' : 17]> f (p) => (r) { r = Neg(p) }",
        "node 'n' (l:f): it has 2 inputs, the function it calls 1",
    ),
    (
        HFN + "g (float[2] x) => (float[n] z) { z = l.f(x) }"
        "<domain: 'l', opset_import: ['' : 17, 'l' : 1]> f (p) => (r) { r = l.h(p) }"
        "<domain: 'l', opset_import: ['' : 17, 'l' : 1]> h (p) => (r) { r = l.f(p) }",
        "functions call themselves: l::f -> l::h -> l::f",
    ),
    (
        HFN + "g (float[2] x) => (float[n] z) { a = l.f(x)  z = Relu(a) }"
        "<domain: 'l', opset_import: ['' : 17]> f (p) => (p) { b = Relu(p) }",
        "output 'p' of function l::f is one of its inputs; put an Identity between",
    ),
    # versions
    (
        "<ir_version: 10, opset_import: ['' : 99]> g (float[2] x) => (float[n] z) { z = Relu(x) }",
        "opset 99 is none that this onnx knows (1 to ",
    ),
    (
        "<ir_version: 99, opset_import: ['' : 17]> g (float[2] x) => (float[n] z) { z = Relu(x) }",
        "IR version 99 is newer than any this onnx knows",
    ),
    (
        "<ir_version: 9, opset_import: ['' : 21]>"
        "g (int4[2] x) => (float[n] z) { z = Cast<to = 1>(x) }",
        "IR version 9 has no type int4; set it to 10 or higher",
    ),
]


@pytest.mark.parametrize(("text", "message"), BROKEN, ids=[each[1][:50] for each in BROKEN])
def test_a_broken_model_is_faulted_in_one_line(text: str, message: str) -> None:
    m = ir.from_onnx_text(text.replace("'", '"'))
    first, *_ = said(m).splitlines()
    assert first.startswith(message)


def test_outputs_need_a_type() -> None:
    assert "output 'z' has no type; declare it" in said(
        model("g (float[2] x) => (z) { z = Relu(x) }")
    )


def test_the_error_shows_neighbours_makers_and_what_onnx_said() -> None:
    m = model(
        """g (float[2] x, float16[2] y) => (float[n] z, float[n] v) {
        ["one"] a = Relu(x)  ["two"] b = Add(a, y)
        ["three"] z = Neg(b)  ["four"] v = Abs(b)  ["far"] u = Neg(x) }"""
    )
    m.graph[1].metadata_props.update({"vlmpass.pass": "fuse", "vlmpass.rule": "add-add"})
    problem, *context = said(m).splitlines()
    assert problem.endswith("different types: 'a' ?, 'y' float16[2]; run repair-types")
    assert context[:-1] == [
        "      one: a = Relu(x float[2])",
        "    > two: b = Add(a, y float16[2])",
        "      three: z float[n] = Neg(b)",
        "      four: v float[n] = Abs(b)",
        "      made by rule add-add, pass fuse",
    ]
    assert context[-1] == (
        "  onnx says: [ShapeInferenceError] (op_type:Add, node name: two): "
        "B has inconsistent type tensor(float16)"
    )


def test_the_first_of_several_faults_is_explained() -> None:
    m = model(
        """g (float[2] x, bool c) => (float[2] z) <float16[2] b> { ["one"] b = Relu(x)
        z = If(c) <then_branch = t () => (float[2] y) { y = Add(x, b) },
                   else_branch = e () => (float[2] w) { w = Neg(x) }> }"""
    )
    assert said(m).startswith(
        "node 'one' (Relu): it makes float, but float16 is declared (and 1 more fault)"
    )


def test_unnamed_and_equally_named_nodes_are_told_apart() -> None:
    m = model("g (float[2] x, float16[2] y) => (float[n] z) { a = Add(x, x)  z = Add(a, y) }")
    assert said(m).startswith("the unnamed Add that makes 'z': its inputs")


# faults that only a graph in memory can have


def test_a_detached_value_is_found() -> None:
    m = model("g (float[2] x) => (float[2] z) { a = Relu(x)  z = Neg(a) }")
    m.graph[1].replace_input_with(0, ir.Value(name="lost"))
    assert "input 0, 'lost', is made by nothing that is visible here" in said(m)
    m.graph[1].replace_input_with(0, ir.Value(name="a"))
    assert "input 0, 'a', is not the value of that name which is visible here" in said(m)
    m.graph[1].replace_input_with(0, ir.Value(name=None))
    assert "input 0 has no name" in said(m)


def test_an_unnamed_output_that_is_used_is_found() -> None:
    m = model("g (float[2] x) => (float[2] z) { a = Relu(x)  z = Neg(a) }")
    m.graph[0].outputs[0].name = ""
    assert "output 0 is used and has no name" in said(m)


def test_values_do_not_leave_their_branch() -> None:
    m = model(
        """g (float[2] x, bool c) => (float[n] z, float[n] v) { a = Relu(x)
        z = If(c) <then_branch = t () => (float[2] y) { k = Neg(a)  y = Neg(k) },
                   else_branch = e () => (float[2] w) { w = Neg(a) }>
        v = Neg(z) }"""
    )
    check(m)
    then = next(graph for graph in m.graph.subgraphs() if graph.name == "t")
    m.graph[2].replace_input_with(0, then[0].outputs[0])
    assert "input 0, 'k', is made by nothing that is visible here" in said(m)
    m.graph[2].replace_input_with(0, m.graph[1].outputs[0])
    then.outputs[0] = m.graph[0].outputs[0]
    assert "output 'a' of a subgraph of the unnamed If that makes 'z' is a value from outside" in (
        said(m)
    )


def test_branches_may_use_the_same_names() -> None:
    check(
        model(
            """g (float[2] x, bool c) => (float[n] z) {
            z = If(c) <then_branch = t () => (float[2] y) { k = Neg(x)  y = Neg(k) },
                       else_branch = e () => (float[2] y) { k = Relu(x)  y = Neg(k) }> }"""
        )
    )


@pytest.mark.parametrize(
    ("dtype", "shape", "message"),
    [
        (ir.DataType.FLOAT16, [2], "is declared float16[2] but holds float[2]"),
        (ir.DataType.FLOAT, [3], "is declared float[3] but holds float[2]"),
        (ir.DataType.FLOAT, [2, 1], "is declared float[2,1] but holds float[2]"),
    ],
)
def test_initializers_hold_what_they_declare(
    dtype: ir.DataType, shape: list[int], message: str
) -> None:
    m = model("g (float[2] x) => (float[n] z) <float[2] w = {1,2}> { z = Add(x, w) }")
    value = m.graph.initializers["w"]
    value.type, value.shape = ir.TensorType(dtype), ir.Shape(shape)
    assert f"initializer 'w' of the graph {message}" in said(m)


def test_initializers_without_data_and_in_functions_are_found() -> None:
    m = model("g (float[2] x) => (float[n] z) <float[2] w = {1,2}> { z = Add(x, w) }")
    m.graph.initializers["w"].const_value = None
    assert "initializer 'w' of the graph has no data" in said(m)
    m = model(
        "g (float[2] x) => (float[n] z) { z = l.f(x) }"
        '<domain: "l", opset_import: ["" : 17]> f (p) => (r) { r = Neg(p) }',
        HFN,
    )
    value = ir.Value(name="w", const_value=ir.tensor([1.0]))
    m.functions["l", "f", ""].graph.register_initializer(value)
    assert "function l::f holds initializers" in said(m)


def test_attribute_references_belong_in_functions() -> None:
    m = model("g (float[2] x) => (float[n] z) { z = LeakyRelu(x) }")
    m.graph[0].attributes.add(ir.RefAttr("alpha", "slope", ir.AttributeType.FLOAT))
    assert "attribute 'alpha' refers to one of a function, outside of any" in said(m)
