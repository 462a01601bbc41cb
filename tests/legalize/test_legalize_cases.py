"""What users met on their targets: each case as a small model, through the command line.

The names are those of the failure, not of a rule: an antialiased Resize that a runtime ignores, an
operator that stands where nobody looks for it, image tokens merged by their values, axes and types
that an accelerator does not take.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import parser

from tests.legalize.agreement import told
from vlmpass.ir_tools.load import load
from vlmpass.ir_tools.run import Runner

HEAD = '<ir_version: 9, opset_import: ["" : {}, "com.microsoft" : 1, "org.pytorch.aten" : 1]>'
RESIZE = """g (float[1,3,32,32] x) => (float[1,3,H,W] y) <int64[4] s = {{1,3,{},{}}}> {{
  y = Resize<mode="{}", antialias=1, cubic_coeff_a=-0.5, exclude_outside=1>(x, , , s) }}"""
RMS = "g (float[2,8] x, float[8] s) => (float[2,8] y) { y = SimplifiedLayerNormalization(x, s) }"
SPELLED = """g (float[2,8] x, float[8] s) => (float[2,8] y)
  <float two = {2}, float e = {1e-6}> {
  p = Pow(x, two) m = ReduceMean<axes=[-1]>(p) a = Add(m, e) r = Sqrt(a) i = Reciprocal(r)
  n = Mul(x, i) y = Mul(n, s) }"""
BRANCHES = """g (float[N,4] x) => (float[M] y) <int64 z = {0}, int64 one = {1}, int64[1] a = {0}> {
  s = Shape(x) i = Gather(s, z) c = Equal(i, one)
  y = If(c) <then_branch=t () => (float[4] p) { p = Squeeze(x, a) },
             else_branch=e () => (float[N,4] q) { q = Identity(x) }> }"""
GELU = 'g (float[2,8] x) => (float[2,8] y) { y = Gelu<approximate="tanh">(x) }'
MERGE = """g (float[b,n,4] e, bool[b,n] m, float[p,4] f) => (float[b,n,4] y) {
  z = NonZero(m) t = Transpose<perm=[1, 0]>(z) y = ScatterND(e, t, f) }"""
WINDOWS = """g (float[1,8,8,4] x) => (float[1,2,2,4,4,4] y) <int64[6] s = {1,2,4,2,4,4}> {
  r = Reshape(x, s) y = Transpose<perm=[0,1,3,2,4,5]>(r) }"""


def written(folder: Path, text: str, opset: int = 18) -> Path:
    path = folder / "source.onnx"
    onnx.save(parser.parse_model(HEAD.format(opset) + text), path)
    return path


def converted(source: Path, target: str, *options: str) -> onnx.ModelProto:
    """Return a model converted for a target, which check takes."""
    out = source.with_name("out.onnx")
    code, text = told("convert", source, out, "--target", target, *options)
    assert code == 0, text
    assert told("check", out, "--target", target)[0] == 0
    return onnx.load(out)


def findings(source: Path, target: str) -> tuple[int, dict[str, object]]:
    code, text = told("check", source, "--target", target, "--json")
    return code, json.loads(text)["targets"][0]


def computed(model: onnx.ModelProto, **feeds: np.ndarray) -> np.ndarray:
    return ort.InferenceSession(model.SerializeToString()).run(None, feeds)[0]


def operators(model: onnx.ModelProto) -> set[str]:
    return {node.op_type for node in model.graph.node}


@pytest.mark.parametrize("target", ["tensorrt-10.15", "openvino"])
@pytest.mark.parametrize(("mode", "size"), [("linear", (13, 11)), ("cubic", (13, 11)),
                                            ("linear", (45, 64)), ("cubic", (64, 45))])  # fmt: skip
def test_an_antialiased_resize_where_it_is_refused_or_ignored(
    tmp_path: Path, target: str, mode: str, size: tuple[int, int]
) -> None:
    """A02, A03: the same up and down, square or not, by products with constant matrices."""
    source = written(tmp_path, RESIZE.format(*size, mode))
    code, found = findings(source, target)
    assert code == 1
    assert found["findings"][0]["support"] == ("wrong" if target == "openvino" else "unsupported")
    assert "antialias" in found["findings"][0]["reason"]
    result = converted(source, target)
    assert "Resize" not in operators(result)
    x = np.random.default_rng(0).standard_normal((1, 3, 32, 32)).astype(np.float32)
    expected = computed(onnx.load(source), x=x)
    # Above the source size, ONNX Runtime rounds coordinates to float32.
    np.testing.assert_allclose(computed(result, x=x), expected, atol=2e-6 if size[0] < 32 else 1e-5)


@pytest.mark.parametrize("mode", ["linear", "cubic"])
def test_an_antialiased_resize_below_its_opset(tmp_path: Path, mode: str) -> None:
    """C06: opset 17 has no antialias; what stands for it is equal."""
    source = written(tmp_path, RESIZE.format(13, 11, mode))
    result = converted(source, "ort-cpu", "--opset", "17")
    assert result.opset_import[0].version == 17
    x = np.random.default_rng(0).standard_normal((1, 3, 32, 32)).astype(np.float32)
    np.testing.assert_allclose(computed(result, x=x), computed(onnx.load(source), x=x), atol=2e-6)


@pytest.mark.parametrize("opset", [17, 23])
def test_a_norm_that_stands_where_the_standard_has_none(tmp_path: Path, opset: int) -> None:
    """A10: check does not fail on it, and says so; a standard target gets standard operators."""
    source = written(tmp_path, RMS, opset)
    assert told("check", source)[0] == 0
    assert told("check", source, "--target", "ort-cpu")[0] == 0
    result = converted(source, "onnx-standard")
    assert "SimplifiedLayerNormalization" not in operators(result)
    assert ("RMSNormalization" in operators(result)) == (opset == 23)
    rng = np.random.default_rng(0)
    feeds = {name: rng.standard_normal(shape).astype(np.float32)
             for name, shape in (("x", (2, 8)), ("s", (8,)))}  # fmt: skip
    with Runner(load(source)) as runner:
        (expected,) = runner.run(feeds).values()
    np.testing.assert_allclose(computed(result, **feeds), expected, atol=1e-5)


@pytest.mark.parametrize(("opset", "operator"), [(17, "Simplified"), (23, "RMSNormalization")])
def test_a_norm_for_onnx_runtime_is_standard_where_it_can_be(
    tmp_path: Path, opset: int, operator: str
) -> None:
    """A10: below 23 a note says that onnx's checker refuses it, and what helps."""
    source = written(tmp_path, SPELLED, 17)
    code, text = told("convert", source, tmp_path / "out.onnx", "--target", "ort-cpu",
                      "--opset", opset)  # fmt: skip
    assert code == 0
    result = onnx.load(tmp_path / "out.onnx")
    assert [node.op_type.startswith(operator) for node in result.graph.node] == [True]
    assert ("with --opset 23" in " ".join(text.split())) == (opset == 17)
    if opset == 23:
        onnx.checker.check_model(result, full_check=True)


def test_a_newer_activation_keeps_its_kind_at_an_older_opset(tmp_path: Path) -> None:
    """A13: the tanh form of Gelu stays that, where the opset has none; a wrong stamp is seen."""
    source = written(tmp_path, GELU, 20)
    result = converted(source, "openvino", "--opset", "17")
    x = np.linspace(-4, 4, 16, dtype=np.float32).reshape(2, 8)
    np.testing.assert_allclose(computed(result, x=x), computed(onnx.load(source), x=x), atol=1e-6)
    code, text = told("check", written(tmp_path, GELU, 17), "--lint")
    assert code == 1
    assert "Gelu" in text


@pytest.mark.parametrize("target", ["tensorrt-10.15", "onnx-standard"])
@pytest.mark.parametrize("places", [0, 3])
def test_image_tokens_are_merged_in_known_shapes(tmp_path: Path, target: str, places: int) -> None:
    """A16: bit for bit, with no image, too."""
    source = written(tmp_path, MERGE)
    result = converted(source, "tensorrt-10.15") if target != "onnx-standard" else None
    if result is None:  # which has NonZero: it is asked for
        out = tmp_path / "out.onnx"
        passes = "infer,substitute{operators=[ScatterND]}"
        assert told("convert", source, out, "--passes", passes)[0] == 0
        result = onnx.load(out)
    assert not {"NonZero", "ScatterND"} & operators(result)
    rng = np.random.default_rng(0)
    mask = np.zeros((2, 5), bool)
    mask.flat[rng.permutation(10)[:places]] = True
    feeds = {
        "e": rng.standard_normal((2, 5, 4)).astype(np.float32),
        "m": mask,
        "f": rng.standard_normal((places, 4)).astype(np.float32),
    }
    assert (computed(result, **feeds) == computed(onnx.load(source), **feeds)).all()


def test_what_an_accelerator_does_not_take_is_named_before(tmp_path: Path) -> None:
    """A18, E09: open sizes are refused with what helps, and then what is left is named."""
    text = """g (float[n,8] x) => (uint8[n,8] y, float s, uint8 z) {
      a = Relu(x) [quantize] y, s, z = DynamicQuantizeLinear(a) }"""
    source = written(tmp_path, text)
    code, found = findings(source, "qnn")
    assert code == 1
    assert {each["reason"] for each in found["findings"]} >= {
        "every shape must be known, and the inputs x are open"
    }
    fixed = tmp_path / "fixed.onnx"
    assert told("convert", source, fixed, "--passes", "set-dims{n=4}")[0] == 0
    code, text = told("convert", fixed, tmp_path / "out.onnx", "--target", "qnn")
    assert code == 2
    assert "quantize (DynamicQuantizeLinear-11)" in text
    assert not (tmp_path / "out.onnx").exists()


def test_six_dimensions_are_named_with_the_parts_that_fall_back(tmp_path: Path) -> None:
    """A19: of windows the Reshape and the Transpose; the partition is told."""
    code, found = findings(written(tmp_path, WINDOWS), "coreml")
    assert code == 1
    assert {each["operator"] for each in found["findings"]} == {"Reshape", "Transpose"}
    reasons = {each["reason"] for each in found["findings"]}
    assert all(each.endswith("five dimensions at most") for each in reasons)
    assert found["partition"]["fallen_nodes"] == 2


@pytest.mark.parametrize("first", ["1", "N"])
def test_windows_are_turned_at_five_dimensions(tmp_path: Path, first: str) -> None:
    """A19: a model that puts its windows together again runs, with an open axis too."""
    text = WINDOWS.replace("y = Trans", "t = Trans").replace("[1,8,8,4]", f"[{first},8,8,4]")
    text = text.replace("float[1,2,2,4,4,4]", "float[M,4,4,4]").replace("{1,2", "{-1,2")
    text = text[: text.rindex("}")] + "e = Constant<value_ints=[-1,4,4,4]>() y = Reshape(t, e) }"
    source = written(tmp_path, text)
    result = converted(source, "coreml")
    assert max(len(node.attribute[0].ints) for node in result.graph.node if node.attribute) <= 5
    x = np.random.default_rng(0).standard_normal((1, 8, 8, 4)).astype(np.float32)
    assert (computed(result, x=x) == computed(onnx.load(source), x=x)).all()


def test_branches_of_different_ranks(tmp_path: Path) -> None:
    """A17: the axis that decides is named, and once it is fixed no If is left."""
    source = written(tmp_path, BRANCHES)
    code, found = findings(source, "tensorrt-10.15")
    assert code == 1
    assert [each["operator"] for each in found["findings"]] == ["If"]
    helps = "vlmpass convert --passes 'set-dims{N=...}'"
    assert found["findings"][0]["remedy"] == helps
    code, text = told("convert", source, tmp_path / "out.onnx", "--target", "tensorrt-10.15")
    assert code == 2
    assert f"{helps} decides it" in " ".join(text.split())
    fixed = tmp_path / "fixed.onnx"
    assert told("convert", source, fixed, "--passes", "set-dims{N=1}", "--no-verify")[0] == 0
    assert operators(converted(fixed, "tensorrt-10.15")) == {"Squeeze"}


def test_nodes_of_int64_without_a_kernel_are_listed(tmp_path: Path) -> None:
    """A20: all that computes with int64 is named; a Cast to it has a kernel."""
    source = written(
        tmp_path,
        """g (float[2,8] x) => (float[2,8] y) {
      [down] i = Cast<to=7>(x) [twice] j = Add(i, i) [up] k = Cast<to=1>(j) y = Relu(k) }""",
    )
    code, found = findings(source, "ort-webgpu")
    assert code == 1
    named = {node["name"] for each in found["findings"] for node in each["nodes"]}
    assert named == {"node 'twice' (Add)", "node 'up' (Cast)"}


def test_int64_of_which_a_range_is_known_becomes_int32(tmp_path: Path) -> None:
    """A20: none is left in what is computed, and it is the same."""
    source = written(
        tmp_path,
        """g (float[2,8] x) => (float[2,8] y) { one = Constant<value_int=1>()
      nil = Constant<value_float=0.0>() m = Greater(x, nil) i = Cast<to=7>(m)
      j = CumSum(i, one) k = Sub(j, one) l = Mul(k, k) n = Max(j, l) y = Cast<to=1>(n) }""",
    )
    assert findings(source, "ort-webgpu")[1]["findings"][0]["remedy"].startswith("vlmpass convert")
    result = converted(source, "ort-webgpu")
    kinds = {each.name: each.type.tensor_type.elem_type for each in result.graph.value_info}
    made = {name for node in result.graph.node for name in node.output}
    assert onnx.TensorProto.INT64 not in {kinds.get(name) for name in made}
    x = np.random.default_rng(0).standard_normal((2, 8)).astype(np.float32)
    assert (computed(result, x=x) == computed(onnx.load(source), x=x)).all()


def test_an_opset_that_a_target_has_fewer_kernels_at(tmp_path: Path) -> None:
    """A21: check names the nodes and the opset that has them, and convert goes there."""
    text = "g (float[2] x) => (float[2] y) { y = RandomNormalLike(x) }"
    source = written(tmp_path, text, 22)
    code, found = findings(source, "ort-cpu")
    assert (code, found["findings"][0]["remedy"]) == (1, "--opset 21")
    assert converted(source, "ort-cpu").opset_import[0].version == 21


def test_one_question_about_several_targets(tmp_path: Path) -> None:
    """G08: by operator with its version, what each does, and what convert would do."""
    source = written(tmp_path, RESIZE.format(13, 11, "cubic"))
    code, text = told("check", source, "--target", "ort-cpu,openvino,tensorrt-10.15", "--json")
    assert code == 1
    said = {each["name"]: each for each in json.loads(text)["targets"]}
    assert said["ort-cpu"]["ok"]
    assert said["openvino"]["operators"] == {"Resize-18": {"wrong": 1}}
    assert said["tensorrt-10.15"]["operators"] == {"Resize-18": {"unsupported": 1}}
    remedies = {f["remedy"] for each in said.values() for f in each["findings"]}
    assert all(each.startswith("vlmpass convert --target") for each in remedies)


def appended(folder: Path, times: int) -> Path:
    """Write a model as `onnx.save` does into a data file that is there: at its end."""
    tensor = onnx.numpy_helper.from_array(np.ones((300, 300), np.float32), "w")
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", ["w"], ["y"])],
        "g",
        [],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, (300, 300))],
        [tensor],
    )
    imports = [onnx.helper.make_opsetid("", 18)]
    model = onnx.helper.make_model(graph, ir_version=9, opset_imports=imports)
    path = folder / "m.onnx"
    for _ in range(times):
        copy = onnx.ModelProto.FromString(model.SerializeToString())
        onnx.save(copy, path, save_as_external_data=True, location="m.data", size_threshold=0)
    return path


@pytest.mark.parametrize("times", [1, 2, 3])
def test_bytes_that_a_second_save_left_behind(tmp_path: Path, times: int) -> None:
    """C10: they are counted; a copy leaves them out, and saving again does not grow a file."""
    path = appended(tmp_path, times)
    code, text = told("check", path, "--lint", "--json")
    assert code == 0
    remarks = json.loads(text)["remarks"]
    assert path.with_name("m.data").stat().st_size == times * 360_000
    reasons = [each["reason"] for each in remarks if each["kind"] == "orphaned-bytes"]
    lost = (times - 1) * 360_000
    assert reasons == [f"{lost} of its {lost + 360_000} bytes belong to no tensor"][: times - 1]
    out = tmp_path / "out.onnx"
    for _ in range(2):
        assert told("convert", path, out, "--weights", "copy", "--no-verify")[0] == 0
        assert sum(each.stat().st_size for each in tmp_path.glob("out*")) < 430_000
    assert json.loads(told("check", out, "--lint", "--json")[1])["remarks"] == []
