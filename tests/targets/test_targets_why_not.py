"""Facts about operators in profiles, and what they say of a node."""

import re
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import parser

from vlmpass.ir_tools.errors import PipelineError
from vlmpass.ir_tools.targets import Context, Support, Verdict, profile, why_not
from vlmpass.passes.infer import Infer

HEAD = """about = "an appliance"
source = "its manual"
[reads]
opset = [9, 22]
ir-version = 10
functions = "automatic"
[unlisted]
operators = "unsupported"
domains = "unsupported"
types = "unsupported"
[sets]
floats = "float float16"
[operators]
"""
FACTS = """
Add = "@floats automatic double unknown int8 wrong int4"
Resize = [
  "X: float",
  "unsupported if antialias = 1: it has no antialias",
  "wrong if mode != nearest linear and rank(X) > 4",
  "unsupported if computed(sizes): sizes must be constant",
  "unsupported if sizes > 100",
]
Relu = { 6-13 = "T: float", "14+" = "T: float unsupported double unknown others" }
Tanh = { 6 = "native" }
If = ["wrong if differ(shape): one shape", "unsupported if differ(rank): one rank"]
TopK = ["X: float", "unsupported if given(Indices)", "unsupported if dynamic(X)"]
Split = ["float", "unsupported if size(input, 0) != 4", "unknown if opset >= 22"]
Cast = ["float", "output: float16"]
Softmax = ["@floats", "unsupported if behind(input) = float16: halves go with it"]
"com.acme.Fused" = "native"
[operators.com.acme]
Other = ["unsupported if mode = fast", "unsupported if absent(mode): it has no default"]
"""
BRANCHES = """y = If(c) <then_branch = t () => (float{} p) {{ p = Relu(x) }},
  else_branch = e () => (float{} q) {{ q = Relu(x) }}>"""


def verdict(folder: Path, facts: str, node: str, opset: int = 21) -> Verdict:
    (folder / "mine.toml").write_text(HEAD + facts, encoding="utf-8")
    text = f"""<ir_version: 10, opset_import: ["" : {opset}, "com.acme" : 1, "own" : 1, "x": 1]>
    g (float[1,3,4,4] x, float[1,1,3,4,4] x5, float[n] xn, float16[2] h, double[2] d, int8[2] i,
       int4[2] q, bfloat16[2] b, int64[4] s, int64[1] k) => (float[2] z)
       <bool c = {{1}}, int64[4] small = {{1,3,8,8}}, int64[4] large = {{1,3,800,800}}> {{
       {node} z = Identity(x) }}
    <domain: "own", opset_import: ["" : 21]> Twice (a) => (c) {{ c = Add(a, a) }}"""
    model = ir.serde.deserialize_model(parser.parse_model(text))
    context = Context.of(model, profile(str(folder / "mine.toml")))
    return why_not(next(iter(model.graph)), context)


@pytest.mark.parametrize(
    ("node", "support", "reason"),
    [
        ("y = Add(x, x)", "native", "has a kernel"),
        ("y = Add(h, h)", "native", "has a kernel"),
        ("y = Add(d, d)", "automatic", "casts or inlines for A in double"),
        ("y = Add(i, i)", "unknown", "nothing says whether it takes A in int8"),
        ("y = Add(q, q)", "wrong", "takes A in int4 and computes something else"),
        ("y = Add(b, b)", "unsupported", "has no Add-14 for A in bfloat16"),
        ("y = Resize<antialias=1>(x,,,small)", "unsupported", "it has no antialias"),
        ("y = Resize<antialias=0>(x,,,small)", "native", "has a kernel"),
        ('y = Resize<mode="cubic">(x5,,,small)', "wrong", "mode != nearest linear and rank"),
        ('y = Resize<mode="cubic">(x,,,small)', "native", "has a kernel"),
        ("y = Resize(x,,,s)", "unsupported", "sizes must be constant"),
        ("y = Resize(x,,,large)", "unsupported", "sizes > 100"),
        ("y = Relu(d)", "unsupported", "has no Relu-14 for X in double"),
        ("y = Relu(i)", "unknown", "nothing says whether it takes X in int8"),
        ("y = Tanh(x)", "unknown", r"nothing says whether it has Tanh-13 \(listed: 6\)"),
        ("y, j = TopK(x, k)", "unsupported", r"given\(Indices\)"),
        ("y, = TopK(xn, k)", "unsupported", r"dynamic\(X\)"),
        ("y = Split<num_outputs=1>(d)", "unsupported", "for input in double"),
        (
            "y = Split<num_outputs=1>(xn)",
            "unknown",
            r"input, 0\) != 4, which is not known",
        ),
        ("y = Split<num_outputs=1>(x)", "unsupported", r"size\(input, 0\) != 4"),
        (BRANCHES.format("[2]", "[3]"), "wrong", r"differ\(shape\): one shape"),
        (BRANCHES.format("[2]", "[n]"), "native", "has a kernel"),
        (BRANCHES.format("[2]", "[2,1]"), "unsupported", r"differ\(rank\): one rank"),
        (BRANCHES.format("[2]", "[]"), "unknown", "which is not known here"),
        ("y = Softmax(h)", "unsupported", "behind.input. = float16"),
        ("y = Softmax(x)", "native", "has a kernel"),
        ("y = com.acme.Fused(x)", "native", "has a kernel"),
        ('y = com.acme.Other<mode="fast">(x)', "unsupported", "mode = fast"),
        ("y = com.acme.Other(x)", "unsupported", "it has no default"),
        ("y = com.acme.Third(x)", "unsupported", r"has no com\.acme\.Third"),
        ("y = x.Fused(x)", "unsupported", r"has no x\.Fused, nor anything of its domain"),
        ("y = own.Twice(x)", "automatic", "inlines functions of the model"),
        ("y = Gelu(x)", "unsupported", "has no Gelu"),
        ("y = SimplifiedLayerNormalization(x, x)", "unsupported", "onnx has no operator Simpl"),
        ("y = RMSNormalization(x, x)", "unsupported", "opset 21 has no RMSN.*from opset 23 on"),
    ],
)
def test_what_a_target_does_with_a_node(
    tmp_path: Path, node: str, support: str, reason: str
) -> None:
    found = verdict(tmp_path, FACTS, node)
    assert found.support.word == support, found
    assert re.search(reason, found.reason), found
    assert found.runs == (support in ("native", "automatic"))
    assert "\n" not in found.reason + found.fact


@pytest.mark.parametrize(
    ("nodes", "runs"),
    [
        ("c = Cast<to=1>(h) t = Transpose(c) y = Softmax(t)", False),
        ("c = Cast<to=1>(h) m = MatMul(c, c) y = Softmax(m)", True),
        ("s = Shape(h) r = Expand(x, s) y = Softmax(r)", True),
    ],
)
def test_what_is_computed_element_by_element_stands_behind(
    tmp_path: Path, nodes: str, runs: bool
) -> None:
    (tmp_path / "mine.toml").write_text(HEAD + FACTS, encoding="utf-8")
    text = (
        f'<ir_version: 8, opset_import: ["" : 17]> g (float16[2,2] h, float x) => (y) {{ {nodes} }}'
    )
    model = ir.serde.deserialize_model(parser.parse_model(text))
    Infer().run(model)
    context = Context.of(model, profile(str(tmp_path / "mine.toml")))
    assert why_not(model.graph[-1], context).runs is runs


def test_the_since_version_counts_and_not_the_opset(tmp_path: Path) -> None:
    assert verdict(tmp_path, FACTS, "y = Tanh(x)", 12).support is Support.NATIVE
    assert verdict(tmp_path, FACTS, "y = Relu(d)", 13).reason == "has no Relu-13 for X in double"
    assert verdict(tmp_path, FACTS, "y = Relu(i)", 13).support is Support.UNSUPPORTED


def test_what_is_not_known_of_a_node_is_said(tmp_path: Path) -> None:
    """The type of a value that nobody inferred decides nothing, unless another operand tells it."""
    (tmp_path / "mine.toml").write_text(HEAD + FACTS, encoding="utf-8")
    context = Context(profile(str(tmp_path / "mine.toml")), {"": 21})
    bare = ir.Value(name="a")
    found = why_not(ir.Node("", "Add", [bare, bare]), context)
    assert (found.support, found.reason) == (Support.UNKNOWN, "the type of A is not known here")
    typed = ir.Value(name="b", type=ir.TensorType(ir.DataType.FLOAT))
    assert why_not(ir.Node("", "Add", [bare, typed]), context).support is Support.NATIVE
    resized = ir.Node("", "Resize", [typed, None, None, bare])
    assert why_not(resized, context).support is Support.UNSUPPORTED


def test_limits_are_added(tmp_path: Path) -> None:
    facts = """Add = "float"\nRelu = { 6-13 = "float", 14 = "float" }
    [limits]
    Relu = { 14 = "wrong if rank(X) = 4" }
    "*" = ["unsupported if rank(*) > 4", "unsupported if empty(*): nothing in it"]"""
    assert verdict(tmp_path, facts, "y = Relu(x)").reason == "rank(X) = 4"
    assert verdict(tmp_path, facts, "y = Relu(x)", 13).runs
    assert verdict(tmp_path, facts, "y = Add(x, x5)").reason == "rank(*) > 4"
    assert verdict(tmp_path, facts, "y = Add(x, x)").runs


def test_what_is_slower_is_inherited(tmp_path: Path) -> None:
    said = 'Add = "native"\nMul = "native"\n[slower]\nAdd = "by far"'
    (tmp_path / "base.toml").write_text(HEAD + said, encoding="utf-8")
    heir = tmp_path / "heir.toml"
    heir.write_text("inherits = 'base.toml'\n[slower]\nMul = 'a bit'", encoding="utf-8")
    assert profile(str(heir)).slower == {("", "Add"): "by far", ("", "Mul"): "a bit"}


def test_an_heir_says_operators_anew(tmp_path: Path) -> None:
    (tmp_path / "base.toml").write_text(HEAD + FACTS, encoding="utf-8")
    heir = tmp_path / "heir.toml"
    heir.write_text("inherits = 'base.toml'\n[operators]\nRelu = '@floats'", encoding="utf-8")
    facts = profile(str(heir)).operators
    assert len(facts["", "Relu"].sections) == 1
    assert ("com.acme", "Other") in facts


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ("Add = 3", r"operators\.Add: 3 is neither a line of text nor a list"),
        ("Add = []", r"operators\.Add: \[\] is neither"),
        ("Add = {}", r"operators\.Add: it says nothing"),
        ("Add = ['float', 3]", r"operators\.Add: 3 is no line of text"),
        ("Add = 'flaot'", r"operators\.Add: flaot is no type"),
        ("Add = '@reals'", "there is no set @reals"),
        ("Add = 'unsupported if'", "operators.Add: "),
        ("Add = 'unsupported if rank(A)'", r"'rank\(A\)' is no condition; write NAME = VALUES"),
        ("Add = 'unsupported if given(A) = 3'", "is no condition"),
        ("Add = 'unsupported if near(A) = 3'", "is no condition"),
        ("Add = 'unsupported if size(A, b) = 3'", "operators.Add: "),
        ("Add = 'unsupported if type(A) = real'", "real is no type"),
        ("Add = 'native'\n[limits]\nMul = 'native'", r"limits\.Mul: nothing is said of the op"),
        ("Add = 'native'\n[slower]\nMul = 'so'", r"slower\.Mul: nothing is said of the operator"),
        ("Add = 'native'\n[slower]\nAdd = 3", r"slower\.Add is 3; give one line of text"),
        ("Add = 'native'\n[slower]\nAdd = ' '", r"slower\.Add is ' '; give one line of text"),
        ("Add = 'unsupported if * = 3'", "is no condition"),
        ("Add = { 6x = 'native' }", "'6x' is no since-version; write 13, 7-12 or 13\\+"),
    ],
)
def test_what_is_wrong_in_facts_is_pointed_at(tmp_path: Path, facts: str, said: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(HEAD + facts, encoding="utf-8")
    with pytest.raises(PipelineError, match=said) as caught:
        profile(str(path))
    assert "\n" not in str(caught.value)
    assert "mine.toml" in str(caught.value)


@pytest.mark.parametrize(
    ("target", "node", "opset", "support"),
    [
        ("ort-cpu", "y = Add(b, b)", 21, "unsupported"),
        ("ort-cpu", "y = Add(h, h)", 21, "automatic"),
        ("onnx-standard", "y = Add(b, b)", 21, "native"),
        ("onnx-standard", "y = SimplifiedLayerNormalization(x, x)", 21, "unsupported"),
        ("onnx-standard", "y = com.microsoft.Gelu(x)", 21, "unsupported"),
        ("tensorrt-10.15", "y = Add(i, i)", 21, "unsupported"),
        ("tensorrt-11", "y = Det(x)", 21, "unsupported"),
        ("tensorrt-10.15", "y = Resize<antialias=1>(x,,,s)", 21, "unsupported"),
    ],
)
def test_targets_that_come_along(target: str, node: str, opset: int, support: str) -> None:
    text = f"""<ir_version: 10, opset_import: ["" : {opset}, "com.microsoft" : 1]>
    g (float[1,3,4,4] x, float16[2] h, double[2] d, int8[2] i, bfloat16[2] b, int64[4] s)
    => (float[2] z) {{ {node} z = Identity(x) }}"""
    model = ir.serde.deserialize_model(parser.parse_model(text))
    found = why_not(next(iter(model.graph)), Context.of(model, profile(target)))
    assert found.support.word == support, found


def test_rows_of_strings_are_picked_wrongly_where_that_is_said() -> None:
    """ONNX Runtime's own Gather decides: it moves one string for each that is picked."""
    numbers = np.arange(64)
    for shape in ((64,), (8, 8), (4, 8, 2), (4, 2, 4, 2), (2, 2, 4, 2, 2), (2,) * 6):
        data = np.array([f"s{each}" for each in numbers], dtype=object).reshape(shape)
        for axis in range(-len(shape), len(shape)):
            given, made = (",".join(each[: len(shape)]) for each in ("abcdef", "ghijkl"))
            model = parser.parse_model(
                f'<ir_version: 8, opset_import: ["" : 17]> '
                f"g (string[{given}] x) => (string[{made}] y) "
                f"<int64[2] i = {{1,0}}> {{ y = Gather<axis={axis}>(x, i) }}"
            )
            session = onnxruntime.InferenceSession(model.SerializeToString())
            (found,) = session.run(None, {"x": data})
            right = bool((found == np.take(data, [1, 0], axis)).all())
            read = ir.serde.deserialize_model(model)
            said = why_not(read.graph[0], Context.of(read, profile("ort-cpu")))
            assert said.runs == right, (shape, axis)
