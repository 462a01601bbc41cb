"""What users reported, each as a small model: norms, caches, types of edges, turned positions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import parser
from unfuse.decoder_files import decoder

from tests.legalize.agreement import told
from tests.legalize.test_legalize_cases import computed
from vlmpass import Pipeline

NORM = """<ir_version: 11, opset_import: ["" : 23]> g (float16[4,256] x, float16[256] s)
  => (float16[4,256] y) { y = RMSNormalization<axis=-1, epsilon=1e-6, stash_type=1>(x, s) }"""
CACHES = """<ir_version: 10, opset_import: ["" : 17, "com.microsoft" : 1]>
  g (float[b,s,192] q, float[b,s,96] k, float[b,s,96] v, float[b,1,p,96] pk, float[b,1,p,96] pv,
     int32[b] l, int32 t) => (float[b,s,192] y, float[b,1,r,32] ck, float[b,1,r,32] cv) {
  y, ck, cv = com.microsoft.GroupQueryAttention<num_heads=2, kv_num_heads=1>
    (q, k, v, pk, pv, l, t) }"""
TURNED = """<ir_version: 10, opset_import: ["" : 21]> g (float[1,2,n,8] q) => (float[1,2,n,8] y)
  <int64[1] z = {0}, int64[1] h = {4}, int64[1] e = {8}, int64[1] a = {3}> {
  x = Slice(q, z, h, a) w = Slice(q, h, e, a) m = Neg(w) r = Concat<axis=-1>(m, x)
  c = Mul(q, cos) d = Mul(r, sin) y = Add(c, d) }"""


def test_a_norm_below_its_opset_keeps_its_wide_statistics(tmp_path: Path) -> None:
    """A07: 23 to 17 without RMSNormalization, as ONNX Runtime computes it to 2 units at most."""
    source = parser.parse_model(NORM)
    result = onnx.ModelProto()
    result.CopyFrom(ir.to_proto(Pipeline(opset=17).run(ir.from_proto(source)).model))
    assert "RMSNormalization" not in {node.op_type for node in result.graph.node}
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((4, 256)) * 400).astype(np.float16)
    s = rng.standard_normal(256).astype(np.float16)
    wanted, found = (computed(each, x=x, s=s) for each in (source, result))
    steps = [each.view(np.int16).astype(int) for each in (wanted, found)]
    assert np.abs(steps[0] - steps[1]).max() <= 2


def test_a_cache_comes_out_as_wide_as_it_goes_in() -> None:
    """E07: what is declared of a present key otherwise gives way."""
    model = ir.from_proto(parser.parse_model(CACHES))
    made = Pipeline("infer").run(model, verify=False).model
    assert [list(map(str, each.shape)) for each in made.graph.outputs[1:]] == [
        ["b", "1", "r", "96"]
    ] * 2


def test_a_cache_that_is_declared_too_narrow_is_found(tmp_path: Path) -> None:
    """E07: by check alone, which names the node, both sizes and what helps."""
    source, out = tmp_path / "source.onnx", tmp_path / "out.onnx"
    onnx.save(parser.parse_model(CACHES), source)
    code, text = told("check", source)
    assert code == 1
    said = " ".join(text.split())
    assert "ck is declared with 32 in dimension 3, and it makes 96" in said
    assert "--passes infer" in said
    assert told("convert", source, out, "--passes", "infer", "--no-verify")[0] == 0
    assert told("check", out)[0] == 0


def test_every_edge_has_a_type() -> None:
    """A11: of what feeds GroupQueryAttention, the integers of its lengths among it."""
    made = Pipeline("infer").run(ir.from_proto(decoder(1, bits=4, opset=21)), verify=False).model
    assert any(node.op_type == "GroupQueryAttention" for node in made.graph)
    untyped = [v.name for node in made.graph for v in node.outputs if v.name and v.dtype is None]
    assert untyped == []


@pytest.mark.parametrize("fuse", ["ort", "standard"])
def test_positions_over_two_axes_are_turned_as_they_are(tmp_path: Path, fuse: str) -> None:
    """F08: bands of rows and of columns beside each other; fused or not, the numbers stay."""
    angles = np.outer([0, 0, 1, 1], [1, 0.1]), np.outer([0, 1, 0, 1], [1, 0.1])
    both = np.concatenate([*angles, *angles], axis=1).astype(np.float32)
    model = parser.parse_model(TURNED)
    for name, made in (("cos", np.cos(both)), ("sin", np.sin(both))):
        model.graph.initializer.append(onnx.numpy_helper.from_array(made, name))
    source, out = tmp_path / "source.onnx", tmp_path / "out.onnx"
    onnx.save(model, source)
    code, text = told("convert", source, out, "--simplify", "--fuse", fuse, "--opset", 23)
    assert code == 0, text
    q = np.random.default_rng(0).standard_normal((1, 2, 4, 8)).astype(np.float32)
    np.testing.assert_allclose(computed(onnx.load(out), q=q), computed(model, q=q), atol=1e-6)
