"""Models stamped with another opset than that of their nodes: put right, or refused by name."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest
from onnx import helper
from typer.testing import CliRunner

from vlmpass import Pipeline
from vlmpass.cli.app import app
from vlmpass.ir_tools.check import check
from vlmpass.ir_tools.errors import CheckError, Refused, VlmpassError
from vlmpass.ir_tools.load import load
from vlmpass.ir_tools.run.runner import Runner

GELU = "float[2,3] x) => (float[2,3] y) { y = Gelu (x) }"
BLOCKED = """uint8[4,8] w, float[2,8] s, float[3,4] x) => (float[3,8] y) {
    d = DequantizeLinear <axis = 0, block_size = 2> (w, s) y = MatMul (x, d) }"""
AXES = "float[2,3] x) => (float[2,1] y) { y = ReduceMean <axes = [1]> (x) }"

MIXED = """float[2,3] x) => (float[2,1] y) {
    a = Cast <to = 1> (x) y = ReduceMean <axes = [1]> (a) }"""
NARROW = "bfloat16[1,1,3,3] x, bfloat16[1,1,3,3] w) => (bfloat16[1,1,1,1] y) { y = Conv (x, w) }"


def model(body: str, opset: int, ir_version: int = 8) -> onnx.ModelProto:
    header = f'<ir_version: {ir_version}, opset_import: ["": {opset}]>'
    return onnx.parser.parse_model(f"{header} g ({body}")


CASES = [
    (GELU, 17, 20),
    (GELU, 13, 20),
    (BLOCKED, 19, 21),
    (AXES, 20, 17),
    (MIXED, 18, 17),
    (NARROW, 18, 22),
]


@pytest.mark.parametrize(("body", "stamped", "meant"), CASES)
def test_the_nearest_opset_at_which_all_is_valid(body, stamped, meant):
    source = model(body, stamped)
    with pytest.raises(CheckError):
        check(load(source))
    result = Pipeline(restamp=True).run(source)
    assert result.model.opset_imports[""] == meant
    check(result.model)
    assert [node.op_type for node in result.model.graph] == [
        node.op_type for node in source.graph.node
    ]
    assert any(f"opset {stamped} was stamped on nodes of opset {meant}" in n for n in result.notes)
    again = Pipeline(restamp=True).run(result.model)
    assert again.model.opset_imports[""] == meant


@pytest.mark.parametrize(("body", "stamped", "meant"), CASES)
def test_the_remedy_of_check_works(body, stamped, meant, tmp_path):
    path, out = tmp_path / "m.onnx", tmp_path / "out.onnx"
    onnx.save(model(body, stamped), path)
    run = CliRunner().invoke
    said = run(app, ["check", str(path)])
    remedy = f"vlmpass convert --restamp stamps opset {meant}"
    assert said.exit_code == 1
    assert remedy in " ".join(said.output.split())
    assert run(app, ["convert", "--restamp", "--no-verify", str(path), str(out)]).exit_code == 0
    assert run(app, ["check", str(out)]).exit_code == 0


@pytest.mark.parametrize("intent", [{"opset": 21}, {"opset": 16}, {"simplify": True}])
def test_convert_names_the_remedy(intent):
    with pytest.raises(VlmpassError, match="--restamp stamps opset 20"):
        Pipeline(**intent).run(model(GELU, 17))
    assert Pipeline(restamp=True, **intent).run(model(GELU, 17))


def test_a_conversion_starts_from_what_was_meant():
    source = model(BLOCKED, 19)
    result = Pipeline(restamp=True, opset=18).run(source, verify=True)
    assert result.checked.numbers.ok
    assert result.model.opset_imports[""] == 18


def test_what_no_opset_has_is_refused_by_name():
    body = """float[2,3] x) => (float[2,3] y) {
        a = Gelu (x) r = ReduceMean <axes = [1]> (a) y = Add (a, r) }"""
    with pytest.raises(Refused) as caught:
        Pipeline(restamp=True).run(model(body, 17))
    assert [(each.node, each.reason) for each in caught.value.refusals] == [
        ("Gelu-unknown", "as it is written, it is of opset 20 to 28"),
        ("ReduceMean-13", "as it is written, it is of opset 1 to 17"),
    ]
    with pytest.raises(CheckError) as found:
        check(load(model(body, 17)))
    assert "restamp" not in str(found.value)


TWOFOLD = "float[2,3,4] x) => (float[2,3,4] y) { a = Softmax (x) y = Gelu (a) }"


def test_what_would_mean_something_else_is_refused_unless_the_caller_knows():
    source = model(TWOFOLD, 12, 7)
    with pytest.raises(Refused, match=r"Softmax-13: at opset 20 it computes something else"):
        Pipeline(restamp=True).run(source)
    result = Pipeline("restamp{to=20}").run(source)
    assert result.model.opset_imports[""] == 20
    check(result.model)
    with pytest.raises(Refused, match="Gelu does not exist before opset 20"):
        Pipeline("restamp{to=18}").run(source)


def test_a_model_that_is_valid_stays_and_is_told_so():
    source = model(GELU, 20, 9)
    result = Pipeline(restamp=True).run(source)
    assert result.model.opset_imports[""] == 20
    assert result.model.ir_version == 9
    assert any(
        "opset 20 is the one that the nodes are written for" in note for note in result.notes
    )


def test_functions_and_subgraphs_are_looked_into():
    body = [helper.make_node("Gelu", ["a"], ["b"])]
    imports = [helper.make_opsetid("", 17)]
    function = helper.make_function("local", "F", ["a"], ["b"], body, imports)
    source = model("float[2] x) => (float[2] y) { y = local.F (x) }", 17)
    source.functions.append(function)
    source.opset_import.append(helper.make_opsetid("local", 1))
    result = Pipeline(restamp=True).run(source).model
    assert [each.opset_imports[""] for each in result.functions.values()] == [20]
    branches = """bool c, float[2] x) => (float[2] y) {
        y = If (c) <then_branch = t () => (float[2] t) { t = Gelu (x) },
                    else_branch = e () => (float[2] f) { f = Relu (x) }> }"""
    assert Pipeline(restamp=True).run(model(branches, 18)).model.opset_imports[""] == 20


@pytest.mark.parametrize("opset", [12, 14, 16])
def test_the_norm_that_only_the_runtime_has_is_of_the_opset_that_is_stamped(opset: int) -> None:
    """`fuse{emit=ort}` writes it below 17; a second run finds it well written."""
    source = ir.from_onnx_text(
        f"""<ir_version: 8, opset_import: ["": {opset}]> g (float[2,8] x) => (float[2,8] y)
        <float[8] s = {{1,2,3,4,5,6,7,8}}, float[8] b = {{8,7,6,5,4,3,2,1}}, float e = {{1e-5}}> {{
        m = ReduceMean<axes = [-1]>(x) d = Sub(x, m) q = Mul(d, d) v = ReduceMean<axes = [-1]>(q)
        w = Add(v, e) r = Sqrt(w) z = Div(d, r) t = Mul(z, s) y = Add(t, b) }}"""
    )
    fused = Pipeline(fuse="ort").run(source).model
    assert [node.op_type for node in fused.graph] == ["LayerNormalization"]
    assert Pipeline("restamp").run(fused).model.graph.opset_imports == {"": opset}
    feeds = {"x": np.random.default_rng(7).standard_normal((2, 8)).astype(np.float32)}
    with Runner(source) as runner:
        (expected,) = runner.run(feeds).values()
    for to in (11, opset, 18):
        made = Pipeline(opset=to).run(fused).model
        with Runner(made) as runner:
            (found,) = runner.run(feeds).values()
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
