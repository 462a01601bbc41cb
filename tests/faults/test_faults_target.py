"""Results that ONNX Runtime does not load, and comparisons that said more than was so."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from vlmpass import Pipeline
from vlmpass.cli.app import run
from vlmpass.ir_tools.errors import VerifyError
from vlmpass.passes import Pass

_RNG = np.random.default_rng(0)
_CUSTOM = """<ir_version: 8, opset_import: ["": 17, "aten_custom": 1]>
g (float[1, 3, 8, 8] x) => (float[1, 3, 16, 16] y) {
    [aa] u = aten_custom._upsample_bicubic2d_aa<scale = 2.0>(x)
    y = Relu(u)
}"""
_BLOWS = """<ir_version: 8, opset_import: ["": 17]> g (float[n, n] x) => (float y) {
    k = Constant<value_ints = [4000, 4000]>()
    a = Tile(x, k)
    b = Concat<axis = 0>(a, a, a, a)
    y = ReduceMax<keepdims = 0>(b)
}"""


def written(text: str, path) -> str:
    onnx.save(onnx.parser.parse_model(text), path)
    return str(path)


def brain(path) -> str:
    """A product and a sum in bfloat16, which ONNX Runtime's CPU does not compute in."""
    import ml_dtypes

    w = numpy_helper.from_array(_RNG.standard_normal((8, 8)).astype(ml_dtypes.bfloat16), "w")
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["t"], name="proj"),
        helper.make_node("Sigmoid", ["t"], ["y"], name="act"),
    ]
    ends = [helper.make_tensor_value_info(n, TensorProto.BFLOAT16, [2, 8]) for n in "xy"]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [w])
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, ir_version=8, opset_imports=opsets), path)
    return str(path)


def blocked(scale: type) -> onnx.ModelProto:
    """4 bits whose scale is float32 and whose values are float16: fused into an invalid node."""
    words = helper.make_tensor("w", TensorProto.UINT4, [64, 16], [3] * 1024)
    scales = numpy_helper.from_array(np.full((2, 16), 0.1, scale), "s")
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s"], ["d"], "deq", axis=0, block_size=32,
                         output_dtype=10),
        helper.make_node("MatMul", ["x", "d"], ["y"], "proj"),
    ]  # fmt: skip
    ends = [helper.make_tensor_value_info(n, 10, ["n", k]) for n, k in (("x", 64), ("y", 16))]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [words, scales])
    opsets = [helper.make_opsetid("", 23)]
    return helper.make_model(graph, ir_version=11, opset_imports=opsets)


class Mistake(Pass):
    """Puts another model's graph in place of the one that it is given."""

    name = "mistake"

    def __init__(self, wrong: ir.Model) -> None:
        self._wrong = wrong

    def run(self, model: ir.Model) -> bool:
        model.graph = self._wrong.graph
        return True


@pytest.mark.parametrize("option", [[], ["--no-verify"]])
def test_a_custom_operator_is_refused_for_a_target(tmp_path, capsys, option):
    path = written(_CUSTOM, tmp_path / "m.onnx")
    code = run(["convert", path, str(tmp_path / "o.onnx"), "--target", "ort-cpu", *option])
    err = " ".join(capsys.readouterr().err.split())
    assert code == 2
    assert "_upsample_bicubic2d_aa" in err
    assert "aten_custom" in err
    assert not (tmp_path / "o.onnx").exists()
    assert run(["convert", path, str(tmp_path / "o.onnx"), "--opset", "18"]) == 0
    assert "not loaded by ONNX Runtime, not compared" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("option", [[], ["--no-verify"]])
def test_bfloat16_is_cast_for_a_target_that_does_not_compute_in_it(tmp_path, option):
    path, out = brain(tmp_path / "m.onnx"), tmp_path / "o.onnx"
    asked = ["convert", path, str(out), "--target", "ort-cpu", "--opset", "18", *option]
    assert run(asked) == 0
    ort.InferenceSession(out)
    assert run([*asked, "--dtype", "float32"]) == 0
    ort.InferenceSession(out)


@pytest.mark.parametrize("option", [[], ["--no-verify"]])
def test_bfloat16_is_refused_for_a_target_where_nothing_may_cast_it(tmp_path, capsys, option):
    path, out = brain(tmp_path / "m.onnx"), tmp_path / "o.onnx"
    asked = ["convert", path, str(out), "--target", "ort-cpu", *option]
    assert run([*asked, "--passes", "infer,convert-opset{to=18}"]) == 2
    err = " ".join(capsys.readouterr().err.split())
    assert "has no" in err
    assert "bfloat16" in err
    assert not out.exists()
    assert run(["check", path, "--target", "ort-cpu"]) == 1
    assert "--dtype float32" in " ".join(capsys.readouterr().out.split())


def test_a_target_is_loaded_at_the_default_level(tmp_path):
    with pytest.raises(VerifyError, match=r"'proj'.*MatMulNBits"):
        Pipeline("infer", target="ort-cpu").convert(
            blocked(np.float32), tmp_path / "o.onnx", verify=False
        )
    assert list(tmp_path.iterdir()) == []
    for scale in (np.float16, np.float32):
        out = tmp_path / "o.onnx"
        Pipeline(target="ort-cpu").convert(blocked(scale), out, verify=False)
        ort.InferenceSession(out)


def test_a_source_that_loads_does_not_become_a_result_that_does_not(tmp_path):
    wrong = ir.from_proto(blocked(np.float32))
    with pytest.raises(VerifyError, match=r"loads the source and does not load the result: .*proj"):
        Pipeline([Mistake(wrong)]).convert(blocked(np.float16), tmp_path / "o.onnx")
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_equal_bit_for_bit_beside_a_model_that_does_not_load(tmp_path, capsys):
    onnx.save(blocked(np.float32), tmp_path / "m.onnx")
    code = run(["convert", str(tmp_path / "m.onnx"), str(tmp_path / "o.onnx"), "--opset", "24"])
    out = " ".join(capsys.readouterr().out.split())
    assert code == 0
    assert "not loaded by ONNX Runtime" in out
    assert "bit for bit" not in out
    double = """<ir_version: 8, opset_import: ["": 10]> g (double[2] x) => (double[2] y) {
        y = Clip<max = 1.0>(x) }"""
    path = written(double, tmp_path / "d.onnx")
    run(["verify", path, path])
    out = capsys.readouterr().out
    assert "does not load" in out
    assert "bit for bit" not in out


def test_a_comparison_that_blows_is_bounded_and_said_last(tmp_path, capsys):
    path = written(_BLOWS, tmp_path / "m.onnx")
    start = time.monotonic()
    out = str(tmp_path / "o.onnx")
    assert run(["convert", path, out, "--opset", "18", "--memory", "300MB"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "not compared: ONNX Runtime was stopped on the model: it needs more than 0.3 GB" in said
    assert time.monotonic() - start < 30


def test_a_target_of_a_runtime_that_is_not_installed_is_refused(tmp_path, capsys, monkeypatch):
    path = written(_CUSTOM, tmp_path / "m.onnx")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert run(["convert", path, str(tmp_path / "o.onnx"), "--target", "ort-cpu"]) == 2
    assert 'pip install "vlmpass[runtime]"' in capsys.readouterr().err


INVALID_SOURCE = """<ir_version: 8, opset_import: ["": 17, "own": 1]>
    g (float[a,b,c,8] x, float[8] s) => (float[d,e,f,g] y) <float two = {2}, float e = {1e-6}> {
        p = Pow(x, two) m = ReduceMean<axes = [-1]>(p) v = Add(m, e) r = Sqrt(v) q = Div(x, r)
        n = Mul(q, s) y = own.Turn<order = [0, -2, -1, 1]>(n)
    }
    <domain: "own", opset_import: ["": 17]>
    Turn <order>(x) => (y) { y = Transpose<perm: ints = @order>(x) }"""


@pytest.mark.parametrize("options", [{}, {"target": "ort-cpu"}])
def test_a_source_that_is_invalid_is_what_a_refusal_names(options, tmp_path: Path) -> None:
    """The reference evaluator runs it, and only the result has what that does not know."""
    path = tmp_path / "source.onnx"
    path.write_bytes(onnx.parser.parse_model(INVALID_SOURCE).SerializeToString())
    with pytest.raises(VerifyError, match=r"the source is not valid itself: .*Transpose.* perm"):
        Pipeline(fuse="ort", **options).convert(path, tmp_path / "out.onnx")
    assert not (tmp_path / "out.onnx").exists()


@pytest.mark.parametrize(
    "node", ["Softmax<axis = 5>(n)", "Concat<axis = 4>(n, n)", "Gather<axis = 7>(n, two)"]
)
@pytest.mark.parametrize("options", [{}, {"target": "ort-cpu"}])
def test_a_fault_behind_what_onnx_does_not_know_is_the_source_s(options, node, tmp_path: Path):
    """No shape goes through SimplifiedLayerNormalization, so that the result's check sees none."""
    path = tmp_path / "source.onnx"
    text = INVALID_SOURCE.replace("own.Turn<order = [0, -2, -1, 1]>(n)", node)
    path.write_bytes(onnx.parser.parse_model(text).SerializeToString())
    with pytest.raises(VerifyError, match="the source is not valid itself: "):
        Pipeline(fuse="ort", **options).convert(path, tmp_path / "out.onnx")
    assert not (tmp_path / "out.onnx").exists()
