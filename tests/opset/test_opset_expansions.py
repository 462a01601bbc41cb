"""What the node tests of onnx do not reach: weights, groups by group, statistics in float32."""

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest

from vlmpass.ir_tools.errors import Refused
from vlmpass.passes.convert_opset import ConvertOpset

from .opset_cases import _by_ort, _by_reference

RANDOM = np.random.default_rng(1)


def convert(text: str, to: int, **weights: ir.TensorProtocol) -> ir.Model:
    model = ir.from_onnx_text(text)
    for name, tensor in weights.items():
        value = next(each for each in model.graph.inputs if each.name == name)
        model.graph.inputs.remove(value)
        value.const_value = tensor
        model.graph.register_initializer(value)
    ConvertOpset(to=to).run(model)
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    return model


def grouped(x: np.ndarray, groups: int, epsilon: float) -> np.ndarray:
    split = x.reshape(x.shape[0], groups, -1)
    split = split - split.mean(2, keepdims=True)
    return (split / np.sqrt(split.var(2, keepdims=True) + epsilon)).reshape(x.shape)


@pytest.mark.parametrize("target", [13, 17, 21, 23])
@pytest.mark.parametrize("dims", ["2,4,3,3", "n,c,h,w"])
def test_group_normalization_of_18_scales_by_group(target, dims):
    model = convert(
        f"""<ir_version: 8, opset_import: ["" : 18]>
        g (float[{dims}] x, float[2] s, float[2] b) => (float[{dims}] y) {{
            y = GroupNormalization <num_groups = 2, epsilon = 0.1> (x, s, b)
        }}""",
        target,
    )
    x = RANDOM.normal(size=(2, 4, 3, 3)).astype(np.float32)
    s, b = np.array([2.0, -1.0], np.float32), np.array([0.5, 3.0], np.float32)
    (y,) = _by_ort(ir.to_proto(model), [x, s, b])
    channels = [each.repeat(2).reshape(1, 4, 1, 1) for each in (s, b)]
    np.testing.assert_allclose(y, grouped(x, 2, 0.1) * channels[0] + channels[1], atol=1e-5)


@pytest.mark.parametrize("target", [11, 13, 19, 20])
@pytest.mark.parametrize("kind", ["int4", "uint4"])
def test_blocks_of_four_bit_weights_are_unpacked_lazily(target, kind):
    dtype = getattr(ml_dtypes, kind)
    low = -8 if kind == "int4" else 0
    weight = RANDOM.integers(low, low + 16, size=(6, 8)).astype(dtype)
    zero = RANDOM.integers(low, low + 16, size=(6, 2)).astype(dtype)
    scale = RANDOM.normal(size=(6, 2)).astype(np.float32)
    model = convert(
        f"""<ir_version: 10, opset_import: ["" : 21]>
        g (float[2,6] x, {kind}[6,8] w, float[6,2] s, {kind}[6,2] z) => (float[2,8] y) {{
            d = DequantizeLinear <axis = 1, block_size = 4> (w, s, z)
            y = MatMul(x, d)
        }}""",
        target,
        w=ir.tensor(weight, name="w"),
        z=ir.tensor(zero, name="z"),
    )
    dtypes = {value.dtype.name for value in model.graph.initializers.values()}
    assert not dtypes & {"INT4", "UINT4"}
    x = RANDOM.normal(size=(2, 6)).astype(np.float32)
    wide = weight.astype(np.float32) - zero.astype(np.float32).repeat(4, axis=1)
    (y,) = _by_ort(ir.to_proto(model), [x, scale])
    np.testing.assert_allclose(y, x @ (wide * scale.repeat(4, axis=1)), rtol=1e-5, atol=1e-5)


def test_four_bit_values_that_vary_are_refused():
    with pytest.raises(Refused, match="int4, which ONNX does not have before opset 21"):
        convert(
            """<ir_version: 10, opset_import: ["" : 21]>
            g (int4[4] x, float s) => (float[4] y) { y = DequantizeLinear(x, s) }""",
            19,
        )


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
@pytest.mark.parametrize(
    ("opset", "operator", "target"),
    [(17, "LayerNormalization", 16), (23, "RMSNormalization", 17)],
)
def test_statistics_are_computed_in_float(kind, opset, operator, target):
    """A14, and A07: an operator that an older parser lacks, with its wide statistics."""
    model = convert(
        f"""<ir_version: 11, opset_import: ["" : {opset}]>
        g ({kind}[2,256] x, {kind}[256] s) => ({kind}[2,256] y) {{ y = {operator}(x, s) }}""",
        target,
    )
    means = [node for node in model.graph if node.op_type == "ReduceMean"]
    assert means
    assert all(node.inputs[0].dtype == ir.DataType.FLOAT for node in means)
    dtype = np.float16 if kind == "float16" else ml_dtypes.bfloat16
    x = (RANDOM.normal(size=(2, 256)) * 400).astype(dtype)
    s = np.ones(256, dtype)
    (y,) = _by_reference(ir.to_proto(model), [x, s])
    wide = x.astype(np.float64)
    if operator == "LayerNormalization":
        wide = wide - wide.mean(1, keepdims=True)
    expected = wide / np.sqrt((wide**2).mean(1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(
        y.astype(np.float64), expected, rtol=2e-3 if kind == "float16" else 2e-2, atol=1e-3
    )


@pytest.mark.parametrize("target", [11, 12, 13, 17])
@pytest.mark.parametrize("counts", [(0, 4), (3, 5)])
def test_attention_over_dynamic_axes_with_a_cache(target, counts):
    past, length = counts
    text = """<ir_version: 11, opset_import: ["" : 23]>
    g (float[b,s,32] q, float[b,s,16] k, float[b,s,16] v, float[b,2,p,8] pk, float[b,2,p,8] pv)
        => (float[b,s,32] y, float[b,2,t,8] nk, float[b,2,t,8] nv) {
            y, nk, nv = Attention <is_causal = 1, q_num_heads = 4, kv_num_heads = 2>
                (q, k, v, "", pk, pv)
        }"""
    shapes = [(2, length, 32), (2, length, 16), (2, length, 16), (2, 2, past, 8), (2, 2, past, 8)]
    feeds = [RANDOM.normal(size=shape).astype(np.float32) for shape in shapes]
    source = ir.to_proto(ir.from_onnx_text(text))
    expected = _by_reference(source, feeds)
    actual = _by_ort(ir.to_proto(convert(text, target)), feeds)
    for e, a in zip(expected, actual, strict=True):
        np.testing.assert_allclose(a, e, rtol=1e-4, atol=1e-5)


def test_a_reduction_over_varying_axes_keeps_every_case():
    model = convert(
        """<ir_version: 8, opset_import: ["" : 18]>
        g (float[a,b,c] x, int64[n] axes) => (float[d,e,f] y) { y = ReduceLogSum(x, axes) }""",
        17,
    )
    x = RANDOM.uniform(0.5, 2, size=(2, 3, 4)).astype(np.float32)
    for axes in ([0], [1, -1], [0, 1, 2], []):
        (y,) = _by_ort(ir.to_proto(model), [x, np.array(axes, np.int64)])
        chosen = tuple(axes) or (0, 1, 2)
        np.testing.assert_allclose(y, np.log(x.sum(chosen, keepdims=True)), rtol=1e-5)


def test_a_volume_is_sampled_before_opset_20():
    text = """<ir_version: 9, opset_import: ["" : 20]>
    g (float[1,2,3,4,5] x, float[1,2,2,2,3] grid) => (float[1,2,2,2,2] y) {
        y = GridSample <mode = "linear", padding_mode = "reflection"> (x, grid)
    }"""
    feeds = [
        RANDOM.normal(size=(1, 2, 3, 4, 5)).astype(np.float32),
        RANDOM.uniform(-2, 2, size=(1, 2, 2, 2, 3)).astype(np.float32),
    ]
    (expected,) = _by_reference(ir.to_proto(ir.from_onnx_text(text)), feeds)
    for target in (19, 16, 13):
        (y,) = _by_ort(ir.to_proto(convert(text, target)), feeds)
        np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("target", [11, 9, 7])
@pytest.mark.parametrize("exponent", ["input", "constant", "positive", "zero"])
@pytest.mark.parametrize("kind", [np.int64, np.uint64])
def test_powers_of_long_integers_are_exact(kind, exponent, target):
    """Above 2^53, where double is not exact; negative powers keep what is left of a fraction."""
    base = np.array([3, 7, 2, 10, 1, 0, 2, 5, 1, 3037000499], kind)
    power = np.array([39, 22, 62, 18, 200, 70, -1, -2, -5, 2], np.int64)
    if kind is np.int64:
        base = np.concatenate([base, -base[:6]])
        power = np.concatenate([power, power[:6]])
    if exponent in ("positive", "zero"):
        power = np.abs(power[:6]) * (exponent == "positive")
        base = base[:6]
    whole = [int(b) ** int(p) if p >= 0 else int(b == 1) for b, p in zip(base, power, strict=True)]
    given = "" if exponent == "input" else f"y = Constant<value_ints=[{','.join(map(str, power))}]>"
    name = np.dtype(kind).name
    model = convert(
        f"""<ir_version: 8, opset_import: ["" : 15]>
        g ({name}[n] x{", int64[n] y" if not given else ""}) => ({name}[n] z) {{
            {given + "()" if given else ""}
            z = Pow(x, y)
        }}""",
        target,
    )
    feeds = [base] if given else [base, power]
    (z,) = _by_reference(ir.to_proto(model), feeds)
    np.testing.assert_array_equal(z, np.array(whole, kind))
