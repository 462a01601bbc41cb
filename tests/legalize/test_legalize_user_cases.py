"""More of what users met, each as a small model through the command line; the first are elsewhere.

What is asked of devices that are not here (CUDA, an older OpenVINO) is asked of profiles that say
what was reported of them.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import numpy_helper, parser

from tests.legalize.agreement import told
from tests.legalize.large_simplified import MOST_BYTES, MOST_SECONDS, simplified
from tests.legalize.test_legalize_cases import (
    computed,
    converted,
    findings,
    operators,
    written,
)
from vlmpass import Pipeline

REFERENCES = np.load(Path(__file__).parents[1] / "substitute" / "references.npz")
OWN = 'about = "as reported"\nsource = "an issue"\n'
RESIZE = """g (float[1,1,32,32] x) => (float[1,1,13,11] y) <int64[4] s = {{1,1,13,11}}> {{
  y = Resize<mode="{}", antialias=1, {}exclude_outside={}>(x, , , s) }}"""


def image(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("target", ["tensorrt-10.15", "openvino", "ort-cpu"])
@pytest.mark.parametrize("size", ["13,11", "45,50"])
@pytest.mark.parametrize("kind", ["bicubic", "bilinear"])
def test_an_antialiased_upsample_that_no_exporter_knows(
    tmp_path: Path, target: str, size: str, kind: str
) -> None:
    """A01: no foreign node is left, and it is what PyTorch computes."""
    text = f"""g (float[1,2,32,30] x) => (float[1,2,{size}] y)
      <int64[2] s = {{{size}}}, bool corners = {{0}}> {{
      y = org.pytorch.aten.ATen<operator="_upsample_{kind}2d_aa">(x, s, corners) }}"""
    result = converted(written(tmp_path, text, 17), target)
    assert {node.domain for node in result.graph.node} == {""}
    made = computed(result, x=image(1, 2, 32, 30))
    np.testing.assert_allclose(made, REFERENCES[f"{kind} {size} 0"], atol=2e-6)


@pytest.mark.parametrize(
    ("mode", "factor"), [("linear", ""), ("cubic", ""), ("cubic", "cubic_coeff_a=-0.5, ")]
)
@pytest.mark.parametrize("outside", [0, 1])
def test_attributes_of_an_antialiased_resize_are_read(
    tmp_path: Path, mode: str, factor: str, outside: int
) -> None:
    """A04: whatever they are, products with matrices compute what the Resize does."""
    source = written(tmp_path, RESIZE.format(mode, factor, outside))
    result = converted(source, "tensorrt-10.15")
    assert "Resize" not in operators(result)
    x = image(1, 1, 32, 32)
    np.testing.assert_allclose(computed(result, x=x), computed(onnx.load(source), x=x), atol=2e-6)


def test_a_runtime_that_has_the_cubic_one_wrong(tmp_path: Path) -> None:
    """A05: as a profile says of it."""
    target = tmp_path / "cuda.toml"
    limit = 'Resize = "wrong if antialias = 1 and mode = cubic: it takes another coefficient"'
    target.write_text(f'inherits = "ort-cpu"\nruntime = "none"\n{OWN}[limits]\n{limit}\n')
    source = written(tmp_path, RESIZE.format("cubic", "cubic_coeff_a=-0.5, ", 1))
    code, found = findings(source, str(target))
    assert (code, found["findings"][0]["support"]) == (1, "wrong")
    result = converted(source, str(target))
    assert "Resize" not in operators(result)
    x = image(1, 1, 32, 32)
    np.testing.assert_allclose(computed(result, x=x), computed(onnx.load(source), x=x), atol=2e-6)


NORMED = """g (float[2,4,3,8] x, float[8] w, float[2,3,4] c, float[2,3,4] s) => (float[2,4,3,8] y) {
  n = RMSNormalization(x, w) r = RotaryEmbedding(n, c, s) y = Gelu(r) }"""


def test_two_versions_of_a_runtime_and_the_roots_of_what_one_lacks(tmp_path: Path) -> None:
    """A08: the older one lacks two, and what comes after them is no finding of its own."""
    older = tmp_path / "older.toml"
    lacks = '[operators]\nRMSNormalization = "unsupported"\nRotaryEmbedding = "unsupported"\n'
    older.write_text(f'inherits = "openvino"\nruntime = "none"\n{OWN}{lacks}')
    newer = tmp_path / "newer.toml"
    newer.write_text(f'inherits = "openvino"\nruntime = "none"\n{OWN}')
    path = tmp_path / "source.onnx"
    head = '<ir_version: 10, opset_import: ["" : 23]> '
    onnx.save(parser.parse_model(head + NORMED), path)
    roots = {each["operator"] for each in findings(path, str(older))[1]["findings"]}
    assert roots == {"RMSNormalization", "RotaryEmbedding"}
    assert findings(path, str(newer))[1]["findings"] == []


def test_a_weight_of_zeros_is_seen_where_types_and_counts_are_right(tmp_path: Path) -> None:
    """B11: and one whose value says no type is written with its own."""
    names = ("q", "k", "v")
    parts = [np.random.default_rng(i).standard_normal((8, 8)).astype(np.float16) for i in range(3)]
    text = """g (float16[n,8] x) => (float16[n,24] y) {
      p = Concat<axis=1>(q, k, v) y = MatMul(x, p) }"""
    right = parser.parse_model('<ir_version: 9, opset_import: ["" : 18]> ' + text)
    right.graph.initializer.extend(map(numpy_helper.from_array, parts, names))
    first, second, third = (tmp_path / f"{name}.onnx" for name in "abc")
    onnx.save(right, first)
    assert told("convert", first, second, "--simplify")[0] == 0
    packed = onnx.load(second)
    assert len(packed.graph.initializer) == 1
    assert told("verify", first, second)[0] == 0
    zeros = np.zeros((8, 24), np.float16)
    packed.graph.initializer[0].CopyFrom(
        numpy_helper.from_array(zeros, packed.graph.initializer[0].name)
    )
    onnx.save(packed, third)
    code, said = told("verify", first, third)
    assert code == 1
    assert "zero" in said
    model = ir.load(second)
    next(iter(model.graph.initializers.values())).type = None
    untyped = tmp_path / "d.onnx"
    Pipeline("infer").convert(model, untyped)
    assert onnx.load(untyped).graph.initializer[0].data_type == onnx.TensorProto.FLOAT16


def test_inputs_and_outputs_that_keep_their_types_get_one_cast_each(tmp_path: Path) -> None:
    """B20."""
    text = """g (float[2,8] x, float[8,8] w) => (float[2,8] y, float[2,8] z) {
      a = Relu(x) b = Mul(a, x) y = MatMul(b, w) z = Add(y, x) }"""
    source = written(tmp_path, text)
    out = tmp_path / "out.onnx"
    assert told("convert", source, out, "--dtype", "float16", "--keep-io")[0] == 0
    casts = [node for node in onnx.load(out).graph.node if node.op_type == "Cast"]
    for name in ("x", "w"):
        assert sum(name in node.input for node in casts) == 1
    for name in ("y", "z"):
        assert sum(name in node.output for node in casts) == 1


def external(folder: Path) -> Path:
    """Write a model with a data file."""
    weight = numpy_helper.from_array(np.ones((64, 64), np.float32), "w")
    head = '<ir_version: 9, opset_import: ["" : 18]> '
    model = parser.parse_model(head + "g (float[2,64] x) => (float[2,64] y) { y = MatMul(x, w) }")
    model.graph.initializer.append(weight)
    path = folder / "m.onnx"
    onnx.save(model, path, save_as_external_data=True, location="m.data", size_threshold=0)
    return path


def test_a_data_file_that_was_renamed_or_cut_is_named(tmp_path: Path) -> None:
    """C13, C17: with what is wrong, and never as a raw error."""
    path = external(tmp_path)
    data = tmp_path / "m.data"
    whole = data.read_bytes()
    data.write_bytes(whole[:1000])
    code, text = told("check", path)
    assert code == 2
    assert "m.data" in text
    assert "1000" in text.replace(",", "").replace(" ", "")
    data.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 16384\n")
    code, text = told("check", path)
    assert code == 2
    assert "LFS" in text
    data.rename(tmp_path / "other.data")
    code, text = told("check", path)
    assert code == 2
    assert "m.data" in text


def test_what_tensorrt_reads_lies_in_one_folder_by_plain_names(tmp_path: Path) -> None:
    """C18: it looks in the folder that it is started in."""
    source, folder = external(tmp_path), tmp_path / "engine"
    folder.mkdir()
    out = folder / "m.onnx"
    assert told("convert", source, out, "--target", "tensorrt-10.15", "--weights", "copy")[0] == 0
    result = onnx.load(out, load_external_data=False)
    kept = [each for tensor in result.graph.initializer for each in tensor.external_data]
    places = {each.value for each in kept if each.key == "location"}
    assert all("/" not in each and (folder / each).exists() for each in places)


def test_a_part_beyond_a_protobuf_is_told_with_its_bytes(tmp_path: Path) -> None:
    """C19: ONNX Runtime hands TensorRT each part as one protobuf, wherever its weights lie."""
    side, path = 20_000, tmp_path / "m.onnx"
    text = """g (float[n,20000] x) => (float[n,20000] y) {
      h = MatMul(x, a) k = Relu(h) y = MatMul(k, b) }"""
    model = parser.parse_model('<ir_version: 9, opset_import: ["": 18]> ' + text)
    for name in "ab":
        weight = model.graph.initializer.add(name=name, data_type=1, dims=[side, side])
        weight.data_location = onnx.TensorProto.EXTERNAL
        for key, value in {"location": name, "offset": 0, "length": side * side * 4}.items():
            weight.external_data.add(key=key, value=str(value))
        with (tmp_path / name).open("wb") as file:
            file.truncate(side * side * 4)  # a hole: nobody reads it
    onnx.save(model, path)
    code, said = findings(path, "ort-trt")
    assert code == 1
    assert "3200000000 bytes of weights" in str(said["finding"])
    assert "trt_load_user_initializer" in str(said["remedy"])
    assert findings(path, "tensorrt-10.15")[0] == 0  # its own parser reads the files


def test_wide_heads_in_half_precision_where_they_overflow(tmp_path: Path) -> None:
    """D15: an Attention that a profile says is wrong is said in others, and stays finite."""
    target = tmp_path / "cuda.toml"
    limit = '["native", "wrong if size(Q, 3) > 256 and type(Q) = float16: NaN in wide heads"]'
    target.write_text(f'inherits = "onnx-standard"\n{OWN}[operators]\nAttention = {limit}\n')
    text = """g (float16[1,2,6,512] q, float16[1,2,6,512] k, float16[1,2,6,512] v)
      => (float16[1,2,6,512] y) { y = Attention<scale=1.0, is_causal=1>(q, k, v) }"""
    path = tmp_path / "source.onnx"
    onnx.save(parser.parse_model('<ir_version: 10, opset_import: ["" : 23]> ' + text), path)
    assert findings(path, str(target))[0] == 1
    result = converted(path, str(target))
    assert "Attention" not in operators(result)
    feeds = {name: image(1, 2, 6, 512).astype(np.float16) for name in "qkv"}
    assert np.isfinite(computed(result, **feeds)).all()


def test_sizes_that_were_baked_in_are_named(tmp_path: Path) -> None:
    """E02: the constant, and the size that it was made of."""
    text = """g (float[b,s,8] x) => (float[2,c,8] y) <int64[3] k = {2,-1,8}> {
      y = Reshape(x, k) }"""
    source = written(tmp_path, text)
    code, said = told("check", source, "--lint", "--json")
    assert code in (0, 1)
    reasons = [each["reason"] for each in json.loads(said)["remarks"]]
    assert any("b" in each and "2" in each for each in reasons)


def test_a_position_embedding_of_another_size(tmp_path: Path) -> None:
    """E03: which node, and which two sizes do not go together."""
    text = """g (float[1,3,h,w] x, float[8,3,14,14] k, float[1,16,8] p) => (float[1,n,8] y)
      <int64[3] s = {1,8,-1}> { c = Conv<strides=[14,14], kernel_shape=[14,14]>(x, k)
      r = Reshape(c, s) t = Transpose<perm=[0,2,1]>(r) [embeddings] y = Add(t, p) }"""
    source = written(tmp_path, text)
    out = tmp_path / "out.onnx"
    code, said = told("convert", source, out, "--passes", "set-dims{h=224 w=224}")
    assert code == 2
    assert "embeddings" in said
    assert "16 and 256" in said
    assert told("convert", source, out, "--passes", "set-dims{h=56 w=56}")[0] == 0


@pytest.mark.skipif(sys.platform != "linux", reason="reads what Linux says of a process")
def test_a_large_model_is_simplified_without_its_weights(tmp_path: Path) -> None:
    """G02, at a tenth of the size: in less memory than its weights are."""
    found = simplified(tmp_path, layers=6, width=3072)
    assert (found.before, found.after) == (6 * 12 + 1, 6)
    assert found.seconds < MOST_SECONDS
    assert found.peak < min(MOST_BYTES, 6 * 3072**2 * 4)
