"""check(): valid models pass, hand-broken ones are faulted at the right node, in plain words."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from vlmpass.ir_tools.check import check
from vlmpass.ir_tools.errors import CheckError
from vlmpass.ir_tools.load import load
from vlmpass.ir_tools.save import save
from vlmpass.ir_tools.skeleton import inline, skeleton

EXPORTS = Path(__file__).parents[1] / "fixtures" / "exports"
H17 = '<ir_version: 8, opset_import: ["" : 17]>\n'
HFN = '<ir_version: 8, opset_import: ["" : 17, "l" : 1]>\n'


def model(text: str, header: str = H17) -> ir.Model:
    return ir.from_onnx_text(header + text)


def said(m: ir.Model) -> str:
    with pytest.raises(CheckError) as caught:
        check(m)
    return str(caught.value)


BROKEN = [
    # types and shapes, found by the onnx checker
    (
        H17 + "g (float[2] x, float16[2] y) => (float[2] z) { ['n'] z = Add(x, y) }",
        "node 'n' (Add): its inputs are bound to different types: 'x' float[2], 'y' float16[2]; "
        "insert a Cast",
    ),
    (
        H17 + "g (bfloat16[1,3,8,8] x, bfloat16[4,3,2,2] w) => (bfloat16[n,c,h,w] z) {"
        " ['c'] z = Conv(x, w) }",
        "node 'c' (Conv): its X may not be bfloat16 at this opset; use a higher opset",
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
        "node 'g' (Upsample): Upsample no longer exists in opset 17",
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
    (
        "<ir_version: 7, opset_import: ['' : 17, 'l' : 1]>"
        "g (float[2] x) => (float[n] z) { z = l.f(x) }"
        "<domain: 'l', opset_import: ['' : 17]> f (p) => (r) { r = Neg(p) }",
        "IR version 7 has no functions; set it to 8 or higher",
    ),
]


@pytest.mark.parametrize(("text", "message"), BROKEN, ids=[each[1][:50] for each in BROKEN])
def test_a_broken_model_is_faulted_in_one_line(text: str, message: str) -> None:
    m = ir.from_onnx_text(text.replace("'", '"'))
    first, *_ = said(m).splitlines()
    assert first.startswith(message)


def test_outputs_need_a_type() -> None:
    assert "output 'z' has no type; run infer" in said(
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
    assert problem.endswith("different types: 'a' ?, 'y' float16[2]; insert a Cast")
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


# what is valid


@pytest.mark.parametrize(
    "text",
    [
        "g (float[2,8] x, float[8] s) => (float[2,8] z) {"
        " a = SimplifiedLayerNormalization<axis = -1>(x, s)  z = Relu(a) }",
        "g (float[2,8] x, float[8] s) => (float[2,8] z) {"
        " a, b, c, d = SkipSimplifiedLayerNormalization<epsilon = 0.1>(x, x, s)  z = Relu(d) }",
        "g (float[2,8] x, float[8] s) => (float[2,8] z) { z = Relu(x) }",
        "g (float[2] x) => (float[2] x) { a = Relu(x) }",
        "g (float[2] x) => (float[2] w) <float[2] w = {1,2}> { a = Relu(x) }",
        'g (float[2] x) => (float[2] z) { z, "" = Dropout(x) }',
    ],
)
def test_odd_but_valid_models_pass(text: str) -> None:
    check(model(text))


def test_layer_normalization_below_its_opset_passes_as_runtimes_have_it() -> None:
    check(
        model(
            "g (float[2,8] x, float[8] s) => (float[2,8] z) {"
            " a = LayerNormalization(x, s, s)  z = Relu(a) }",
            '<ir_version: 8, opset_import: ["" : 14]>\n',
        )
    )


def test_unknown_domains_pass_with_their_declared_types() -> None:
    text = "g (float[2] x) => (float[2] z) <{}[2] a> {{ a = com.Any<k = 1>(x)  z = Add(a, x) }}"
    header = '<ir_version: 8, opset_import: ["" : 17, "com" : 1]>\n'
    check(model(text.format("float"), header))
    assert "bound to different types: 'a' float16[2], 'x' float[2]" in said(
        model(text.format("float16"), header)
    )


@pytest.mark.parametrize(
    "path", sorted(EXPORTS.glob("*.onnx")), ids=lambda path: path.name.removesuffix(".onnx")
)
def test_real_exports_pass_but_for_bfloat16_convolutions(path: Path) -> None:
    m = load(path)
    before = skeleton(m, inline).SerializeToString(deterministic=True)
    if path.name.startswith("vision.bfloat16") and m.opset_imports[""] < 22:
        assert "(Conv): its X may not be bfloat16" in said(m)
    else:
        check(m)
    assert skeleton(m, inline).SerializeToString(deterministic=True) == before


def test_small_values_shape_the_check_wherever_they_lie(tmp_path: Path) -> None:
    m = model("g (float[2,8] x) => (float[4,4] z) <int64[2] s = {4,5}> { z = Reshape(x, s) }")
    assert "it makes 5 in dimension 1, but 4 is declared" in said(m)
    (tmp_path / "data").write_bytes(np.array([4, 5], "<i8").tobytes())
    m.graph.initializers["s"].const_value = ir.ExternalTensor(
        "data", 0, 16, ir.DataType.INT64, shape=ir.Shape([2]), name="s", base_dir=tmp_path
    )
    assert "it makes 5 in dimension 1, but 4 is declared" in said(m)
    (tmp_path / "data").unlink()
    m.graph.initializers["s"].const_value = ir.ExternalTensor(
        "data", 0, 16, ir.DataType.INT64, shape=ir.Shape([2]), name="s", base_dir=tmp_path
    )
    assert "its shape depends on the values of 's', which cannot be read" in said(m)


HUGE = """
import sys
import numpy as np
import onnx_ir as ir
from vlmpass.ir_tools.check import check
from vlmpass.ir_tools.errors import CheckError
from vlmpass.ir_tools.load import load
from vlmpass.ir_tools.memory import peak_rss
m = load(sys.argv[1])
check(m)
before = peak_rss()
for _ in range(2):
    check(m)
m.graph[2].outputs[0].type = ir.TensorType(ir.DataType.FLOAT16)
try:
    check(m)
except CheckError as error:
    assert "makes float" in str(error), error
else:
    raise AssertionError("not found")
print(peak_rss() - before)
"""


def test_a_model_of_four_gigabytes_is_checked_without_its_weights(tmp_path: Path) -> None:
    """Sparse data files in graph, subgraph, function and attribute, none of it ever read."""
    rows = 1 << 29  # 2 GiB of float32
    with (tmp_path / "w.data").open("wb") as file:
        file.truncate(rows * 4)
    text = """g (float[4] x, bool c) => (float[4] z) <float[1] w = {0}> {
        i = Constant<value_ints = [0, 1, 2, 3]>()  a = Gather(w, i)  b = Add(a, x)
        d = If(c) <then_branch = t () => (float[4] y) <float[1] v = {0}> {
                       k = Gather(v, i)  y = Add(k, b) },
                   else_branch = e () => (float[4] u) { u = Neg(b) }>
        z = l.f(d, i) }
        <domain: "l", opset_import: ["" : 17]> f (p, q) => (r) {
            t = Constant<value = float[1] {1.0}>()  s = Gather(t, q)  r = Add(s, p) }"""
    m = model(text, HFN)

    def huge(name: str) -> ir.ExternalTensor:
        return ir.ExternalTensor(
            "w.data", 0, rows * 4, ir.DataType.FLOAT, shape=ir.Shape([rows]), name=name
        )

    for graph in m.graphs():
        for name, value in graph.initializers.items():
            value.const_value, value.shape = huge(name), ir.Shape([rows])
    constant = m.functions["l", "f", ""][0]
    constant.attributes["value"] = ir.AttrTensor("value", huge("t"))
    (tmp_path / "m.onnx").write_bytes(skeleton(m, huge_or_inline).SerializeToString())
    done = subprocess.run(
        [sys.executable, "-c", HUGE, str(tmp_path / "m.onnx")],
        check=True,
        capture_output=True,
        text=True,
    )
    assert int(done.stdout) < 20_000_000


def huge_or_inline(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    return tensor if isinstance(tensor, ir.ExternalTensor) else inline(tensor)


def test_nothing_is_left_in_the_temporary_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    check(model("g (float[2] x) => (float[n] z) { z = Relu(x) }"))
    said(model("g (float[2] x) => (float16[2] z) { z = Relu(x) }"))
    assert os.listdir(tmp_path) == []


def test_weights_saved_and_loaded_are_checked(tmp_path: Path) -> None:
    m = model("g (float[2] x) => (float[n] z) { z = MatMul(x, w2) }".replace("w2", "x"))
    weight = ir.Value(name="w", const_value=ir.tensor(np.ones((2, 999), np.float32)))
    m.graph.register_initializer(weight)
    m.graph[0].replace_input_with(1, weight)
    save(m, tmp_path / "m.onnx")
    check(load(tmp_path / "m.onnx"))
