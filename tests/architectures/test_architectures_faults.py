"""What other families of models showed, each as the smallest graph of its kind."""

import numpy as np
import onnx_ir as ir
import pytest

from vlmpass import Pipeline, VlmpassError
from vlmpass.ir_tools.run import verify

WINDOWS = """<ir_version: 8, opset_import: ["": 17]>
g (float[batch, 8, 16] x) => (float[batch, 8, 16] y)
<int64[1] six = {6}, int64[2] pairs = {-1, 2}, int64[1] last = {-1}, int64[1] zero = {0},
 int64[1] least = {-9223372036854775807}, int64[3] cut = {-1, 2, 16}, int64[3] whole = {-1, 8, 16},
 float[16] scale = {1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1},
 float[16] bias = {0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0}>
{
    none = ConstantOfShape <value = int64[1] {0}> (six)
    paired = Reshape(none, pairs)
    turned = Slice(paired, last, least, zero, last)
    counts = Transpose <perm = [1, 0]> (turned)
    pads = Reshape(counts, last)
    padded = Pad(x, pads)
    windows = Reshape(padded, cut)
    seen = Relu(windows)
    back = Reshape(seen, whole)
    sum = Add(x, back)
    y = LayerNormalization <axis = -1> (sum, scale, bias)
}"""

PERMUTED = """<ir_version: 8, opset_import: ["": 17]>
g (float[batch, 3, 4, 5] x) => (float[batch, 4, 5, 3] y) {
    up = Exp(x)
    turned = Transpose <perm = [0, -2, -1, 1]> (up)
    y = Neg(turned)
}"""

CAST = """<ir_version: 8, opset_import: ["": 17]>
g (int64[batch, seq] x) => (float[batch, seq] y) <float[1] half = {0.5}> {
    slope = Cast <to = 16> (half)
    places = Cast <to = 15> (x)
    scaled = Mul(slope, places)
    y = Cast <to = 1> (scaled)
}"""

SOUND = """<ir_version: 8, opset_import: ["": 17]>
g (float[batch, %s] sound) => (float[batch, 1, frames] y)
<int64[1] one = {1}, float[1, 1, 8] few = {0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8}>
{
    apart = Unsqueeze(sound, one)
    first = Conv <strides = [5]> (apart, few)
    second = Conv <strides = [5]> (first, few)
    y = Conv <strides = [5]> (second, few)
}"""


def test_sizes_that_simplifying_lays_open_are_fused_by_in_the_first_run():
    pipeline = Pipeline(simplify=True, fuse="ort")
    once = pipeline.run(ir.from_onnx_text(WINDOWS)).model
    assert verify(ir.from_onnx_text(WINDOWS), once).ok
    assert [node.op_type for node in once.graph][-1] == "SkipLayerNormalization"
    again = pipeline.run(once).model
    assert [node.op_type for node in again.graph] == [node.op_type for node in once.graph]


@pytest.mark.parametrize("intent", [{"opset": 21}, {"target": "onnx-standard"}])
def test_axes_counted_from_the_end_are_what_pytorch_permutes(intent):
    result = Pipeline(**intent).run(ir.from_onnx_text(PERMUTED)).model
    meant = ir.from_onnx_text(PERMUTED.replace("-2, -1", "2, 3"))
    assert verify(meant, result).ok
    x = np.random.default_rng(3).standard_normal((2, 3, 4, 5)).astype(np.float32)
    [turned] = [node for node in result.graph if node.op_type == "Transpose"]
    perm = turned.attributes.get_ints("perm")
    assert np.array_equal(x.transpose(perm), x.transpose(0, -2, -1, 1))


def test_axes_that_permute_nothing_stay_a_fault_of_the_source():
    wrong = ir.from_onnx_text(PERMUTED.replace("-2, -1", "-1, -1"))
    with pytest.raises(VlmpassError, match="source is not valid itself"):
        Pipeline(opset=21).run(wrong)


def test_pytorchs_number_of_bfloat16_is_no_complex_number():
    result = Pipeline(dtype="float32", opset=21).run(ir.from_onnx_text(CAST)).model
    assert verify(ir.from_onnx_text(CAST.replace("to = 15", "to = 16")), result).ok


@pytest.mark.parametrize("name", ["samples", "sequence_length"])
def test_sound_is_as_long_as_filters_ask_for(name):
    model = ir.from_onnx_text(SOUND % name)
    found = verify(model, model)
    assert [each.dims[name] for each in found.trials] == [1600, 2080]


LATENT = """<ir_version: 8, opset_import: ["": 17]>
g (float[b,4,s,12] q, float[b,4,t,12] k, float[b,4,t,WIDTH] v, float[b,1,s,t] m)
  => (float[b,4,s,WIDTH] y) <float scale = {0.25}> {
    kt = Transpose <perm = [0, 1, 3, 2]> (k)
    p = MatMul(q, kt) c = Mul(p, scale) a = Add(c, m) w = Softmax <axis = -1> (a)
    y = MatMul(w, v) }"""


@pytest.mark.parametrize("width", [4, 12, 20])
def test_values_of_another_size_than_keys_run_in_multi_head_attention(width):
    source = ir.from_onnx_text(LATENT.replace("WIDTH", str(width)))
    result = Pipeline("fuse{emit=ort}").run(source).model
    assert "MultiHeadAttention" in [node.op_type for node in result.graph]
    assert verify(ir.from_onnx_text(LATENT.replace("WIDTH", str(width))), result).ok


EMBEDDED = """<ir_version: 8, opset_import: ["": 17]>
g (int64[b,s] i, int64[b,s] j) => (float[b,s,4] y)
<float[3,4] t = {1, 2, 3, 4, 5, 7, 6, 8, 9, 2, 1, 5}, float two = {2}, float eps = {0.0001},
 float[3,4] u = {2, 1, 4, 1, 5, 3, 6, 2, 9, 1, 3, 5}, float[4] w = {1, 2, 3, 4},
 float[4] c = {3, 2, 1, 0.5}, float[4,4] z = {1, 0, 2, 1, 0, 3, 1, 2, 1, 1, 0, 1, 2, 1, 1, 0}> {
    a = Gather(t, i) e = Gather(u, j) x = Add(a, e)
    m = ReduceMean <axes = [-1]> (x) d = Sub(x, m) p = Pow(d, two)
    v = ReduceMean <axes = [-1]> (p) h = Add(v, eps) r = Sqrt(h) q = Div(d, r)
    n = Mul(w, q) o = Add(n, c) y = MatMul(o, z) }"""


def test_a_spelled_norm_of_rows_loads_in_half_precision():
    """ONNX Runtime fused float32 rows and a float16 weight to one operator, which has one type."""
    result = Pipeline(dtype="float16").run(ir.from_onnx_text(EMBEDDED)).model
    found = verify(ir.from_onnx_text(EMBEDDED), result)
    assert found.ok
    assert found.actual_ran.startswith("ONNX Runtime")


STACKED = """<ir_version: 8, opset_import: ["": 17]>
g (float[batch, seq, 2, 4] q, float[1, 1, 1, 8] angles) => (float[a, b, c, d] y)
<int64[1] first = {0}, int64[1] all_but = {-2}, int64[1] rest = {-1}, int64[1] axis = {AXIS},
 int64[1] next = {NEXT}, int64[1] end = {5}> {
    x = Exp(q) one = Unsqueeze(q, axis) two = Unsqueeze(x, axis)
    stacked = Concat <axis = AXIS> (one, two)
    shape = Shape(stacked) kept = Slice(shape, first, all_but, first)
    last = Slice(shape, next, end, first)
    flat = Concat <axis = 0> (kept, rest, last) turned = Reshape(stacked, flat)
    y = Mul(turned, angles) }"""
"""Cohere 2's turned pairs: the TorchScript exporter stacks along axis 2 what has four axes."""


def _stacked(axis: int) -> str:
    return STACKED.replace("AXIS", str(axis)).replace("NEXT", str(axis + 1))


@pytest.mark.parametrize("axis", [2, 3])
@pytest.mark.parametrize("opset", [13, 17, 22])
def test_what_is_not_valid_by_its_sizes_is_a_fault_of_the_source(axis, opset):
    """An older opset infers less of sizes: to stamp it was advised, and made nothing valid."""
    source = ir.from_onnx_text(_stacked(axis).replace("17]", f"{opset}]"))
    before = ir.to_proto(source).SerializeToString()
    with pytest.raises(VlmpassError, match="the source is not valid itself") as told:
        Pipeline(simplify=True).run(source)
    assert told.value.remedy.startswith("export it again")
    assert ir.to_proto(source).SerializeToString() == before


def test_what_is_valid_by_its_sizes_stays():
    result = Pipeline(simplify=True).run(ir.from_onnx_text(_stacked(4))).model
    assert verify(ir.from_onnx_text(_stacked(4)), result).ok


TRUTHS = """<ir_version: 8, opset_import: ["": 17]>
g (float[batch, seq] x) => (int64[batch, seq] y)
<int64 axis = {1}, float zero = {0}, int64[2] whole = {0, -1}, bool[1, 1] yes = {1}> {
    SEEN
    counted = CumSum(seen, axis)
    y = Identity(counted) }"""


@pytest.mark.parametrize("intent", [{"opset": 21}, {"target": "onnx-standard"}])
@pytest.mark.parametrize(
    "seen",
    [
        "seen = Greater(x, zero)",
        "above = Greater(x, zero) seen = Reshape(above, whole)",
        "no = Not(yes) above = Greater(x, zero) seen = Xor(above, no)",
        "set = Not(yes) above = Greater(x, zero) seen = Or(above, set)",
    ],
)
def test_truth_values_are_summed_up_as_pytorch_does(seen, intent):
    """It is a sum of int64 in PyTorch, and no node of ONNX; a target's result was all truths."""
    import onnxruntime

    result = Pipeline(**intent).run(ir.from_onnx_text(TRUTHS.replace("SEEN", seen))).model
    x = np.random.default_rng(3).standard_normal((2, 7)).astype(np.float32)
    session = onnxruntime.InferenceSession(ir.to_proto(result).SerializeToString())
    [got] = session.run(None, {"x": x})
    assert got.dtype == np.int64
    assert np.array_equal(got, (x > 0).cumsum(1))
