"""quant-linear: every exporter's spelling becomes one node, with the exported graph's weights."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx.reference import ReferenceEvaluator
from quant_tools import numbers, pack, run

from vlmpass import Pipeline
from vlmpass.ir_tools.errors import Refused
from vlmpass.ir_tools.save import save
from vlmpass.ir_tools.weights import Weight
from vlmpass.passes.convert_opset import ConvertOpset
from vlmpass.passes.quant_linear import QuantLinear

EXPORTS = Path(__file__).parent.parent / "fixtures" / "exports"
D = ir.DataType


def spelled(
    bits: int,
    block: int,
    dtype: str,
    values: np.ndarray,
    zeros: np.ndarray,
    scales: np.ndarray,
    groups: np.ndarray,
) -> str:
    """A GPTQ layer as exporters write it: words shifted, masked and scaled by group."""
    (k, n), top, each = values.shape, 1 << bits, 32 // bits
    number = {"float": lambda x: x, "float16": lambda x: np.float16(x).view(np.uint16)}[dtype]
    shifts = np.arange(each) * bits
    return f"""<ir_version: 10, opset_import: ["": 21]>
    g ({dtype}[m,{k}] x) => ({dtype}[m,{n}] y)
    <int32[{k // each},{n}] qweight = {numbers(pack(values, bits, 0))},
     int32[{k // block},{n // each}] qzeros = {numbers(pack(zeros, bits, 1))},
     {dtype}[{k // block},{n}] scales = {numbers(number(scales))},
     int64[{k}] g_idx = {numbers(groups)}, int64[1] one = {{1}}, int64[1] two = {{2}},
     uint32[1,{each},1] down = {numbers(shifts)}, uint32[1,1,{each}] across = {numbers(shifts)},
     int32 mask = {{{top - 1}}}, int32 plus = {{1}},
     int64[2] wshape = {{{k}, {n}}}, int64[2] zshape = {{{k // block}, {n}}}> {{
        a = Unsqueeze(qweight, one) b = Cast<to=12>(a)
        c = BitShift<direction="RIGHT">(b, down) d = Cast<to=6>(c) e = BitwiseAnd(d, mask)
        w = Reshape(e, wshape)
        f = Unsqueeze(qzeros, two) h = Cast<to=12>(f)
        i = BitShift<direction="RIGHT">(h, across) j = Cast<to=6>(i)
        l = BitwiseAnd(j, mask) o = Add(l, plus) z = Reshape(o, zshape)
        zg = Gather(z, g_idx) sg = Gather(scales, g_idx)
        s = Sub(w, zg) t = Cast<to={1 if dtype == "float" else 10}>(s) u = Mul(sg, t)
        [linear] y = MatMul(x, u) }}"""


def layer(
    bits: int = 4,
    *,
    k: int = 64,
    n: int = 32,
    block: int = 32,
    order: bool = False,
    top_zero: bool = False,
    dtype: str = "float",
) -> tuple[ir.Model, np.ndarray, dict[str, np.ndarray]]:
    """One GPTQ layer spelled with shifts; also its weight and its inputs."""
    rng = np.random.default_rng(bits + k + order)
    top = 1 << bits
    values = rng.integers(0, top, (k, n))
    zeros = rng.integers(0, top - 1, (k // block, n))  # stored one less than they are
    if top_zero:
        zeros[0, 0] = top - 1
    scales = rng.integers(1, 64, (k // block, n)) / 64
    groups = np.arange(k) // block
    if order:
        groups = rng.permutation(groups)
    text = spelled(bits, block, dtype, values, zeros, scales, groups)
    weight = (values - (zeros + 1)[groups]) * scales[groups]
    feeds = {
        "x": rng.standard_normal((3, k)).astype(np.float32 if dtype == "float" else np.float16)
    }
    return ir.from_onnx_text(text), weight, feeds


def held_weight(model: ir.Model) -> np.ndarray:
    """What the rewritten layer multiplies with, rows in their first order."""
    twin = model.clone()
    node = next(n for n in twin.graph if n.op_type == "MatMul")
    weight = node.inputs[1]
    twin.graph.outputs.append(weight)
    if weight.producer() is None:
        return weight.const_value.numpy()
    gather = next((n for n in twin.graph if n.op_type == "Gather"), None)
    found = run(twin, {"x": np.zeros((1, weight.shape[0]), node.inputs[0].dtype.numpy())})[-1]
    if gather is None:
        return found
    restored = np.empty_like(found)
    restored[gather.inputs[1].const_value.numpy()] = found
    return restored


@pytest.mark.parametrize("order", [False, True], ids=["in order", "act-order"])
@pytest.mark.parametrize("dtype", ["float", "float16"])
@pytest.mark.parametrize("bits", [4, 8])
def test_quant_dequantize_linear_has_the_same_weight_to_the_bit(
    bits: int, dtype: str, order: bool
) -> None:
    model, weight, feeds = layer(bits, order=order, dtype=dtype)
    (wanted,) = run(model, feeds)
    assert QuantLinear(to="dequantize-linear").run(model)
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    expected = ["DequantizeLinear", "Gather", "MatMul"] if order else ["DequantizeLinear", "MatMul"]
    assert [node.op_type for node in model.graph] == expected
    held = held_weight(model)
    np.testing.assert_array_equal(held, weight.astype(held.dtype))
    scale = np.abs(wanted).max()
    np.testing.assert_allclose(run(model, feeds)[0], wanted, rtol=1e-2, atol=2e-3 * scale)
    numbers_held = model.graph[0].inputs[0]
    assert numbers_held.dtype == {4: D.UINT4, 8: D.UINT8}[bits]
    assert isinstance(numbers_held.const_value, Weight)
    assert not QuantLinear(to="dequantize-linear").run(model)


@pytest.mark.parametrize("order", [False, True], ids=["in order", "act-order"])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_quant_matmul_nbits_computes_the_same(bits: int, order: bool) -> None:
    model, weight, feeds = layer(bits, order=order)
    assert QuantLinear().run(model)
    assert [n.op_type for n in model.graph] == [*["Gather"] * order, "MatMulNBits"]
    node = model.graph[-1]
    assert node.attributes["block_size"].as_int() == 32
    assert model.opset_imports["com.microsoft"] == 1
    np.testing.assert_allclose(run(model, feeds)[0], feeds["x"] @ weight, rtol=1e-4, atol=1e-4)
    assert "blocks of 32" in node.metadata_props["vlmpass.reason"]


def test_quant_plain_weights() -> None:
    model, weight, feeds = layer(2)
    assert QuantLinear(to="float").run(model)
    assert [n.op_type for n in model.graph] == ["MatMul"]
    np.testing.assert_array_equal(held_weight(model), weight)
    np.testing.assert_allclose(run(model, feeds)[0], feeds["x"] @ weight, rtol=1e-4, atol=1e-4)


def test_quant_zero_point_beyond_the_bits() -> None:
    model, weight, feeds = layer(top_zero=True)
    QuantLinear().run(model)
    assert model.graph[-1].inputs[3].dtype == D.FLOAT
    np.testing.assert_allclose(run(model, feeds)[0], feeds["x"] @ weight, rtol=1e-4, atol=1e-3)


def test_quant_zero_point_beyond_four_bits_takes_eight() -> None:
    model, weight, _ = layer(top_zero=True)
    QuantLinear(to="dequantize-linear").run(model)
    assert model.graph[0].inputs[0].dtype == D.UINT8
    np.testing.assert_array_equal(held_weight(model), weight)


@pytest.mark.parametrize("to", ["matmul-nbits", "dequantize-linear"])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_quant_file_is_hardly_larger_than_the_packed_numbers(
    to: str, bits: int, tmp_path: Path
) -> None:
    model, _, _ = layer(bits, k=512, n=512, block=128)
    kept = ("qweight", "qzeros", "scales")
    packed = sum(model.graph.initializers[name].const_value.nbytes for name in kept)
    if to == "dequantize-linear":
        ConvertOpset(to=25 if bits == 2 else 21).run(model)
    QuantLinear(to=to).run(model)
    save(model, tmp_path / "m.onnx")
    assert sum(each.stat().st_size for each in tmp_path.glob("m.onnx*")) <= 1.1 * packed


@pytest.mark.parametrize("top_zero", [False, True])
def test_quant_two_bits_by_the_reference(top_zero: bool) -> None:
    """uint2 numbers, uint4 where a zero point of 4 is among them; ONNX's definition computes."""
    model, weight, feeds = layer(2, top_zero=top_zero)
    ConvertOpset(to=25).run(model)
    QuantLinear(to="dequantize-linear").run(model)
    node = model.graph[0]
    assert node.inputs[0].dtype == (D.UINT4 if top_zero else D.UINT2)
    assert ("held in 4" in node.metadata_props["vlmpass.reason"]) == top_zero
    np.testing.assert_array_equal(held_weight(model), weight)
    (result,) = ReferenceEvaluator(ir.to_proto(model)).run(None, feeds)
    np.testing.assert_allclose(result, feeds["x"] @ weight, rtol=1e-4, atol=1e-4)


def test_quant_zero_point_beyond_eight_bits() -> None:
    model, weight, _ = layer(8, top_zero=True)
    with pytest.raises(Refused, match="zero point of 256 does not fit 8 bits"):
        QuantLinear().run(model)
    QuantLinear(to="dequantize-linear").run(model)
    assert model.graph[0].inputs[0].dtype == D.UINT16
    np.testing.assert_array_equal(held_weight(model), weight)


def test_quant_refuses_what_the_opset_lacks() -> None:
    model, _, _ = layer(2)
    model.opset_imports[""] = 20
    before = ir.to_proto(model).SerializeToString()
    with pytest.raises(Refused, match=r"linear \(MatMul\): .* needs opset 21"):
        QuantLinear(to="dequantize-linear").run(model)
    assert ir.to_proto(model).SerializeToString() == before


def test_quant_two_bits_are_held_in_four_where_the_opset_has_no_two() -> None:
    model, weight, feeds = layer(2)
    wanted = run(model, feeds)
    QuantLinear(to="dequantize-linear").run(model)
    node = model.graph[0]
    assert node.inputs[0].dtype == D.UINT4
    assert node.metadata_props["vlmpass.reason"].endswith("since opset 21 has no blocks of 2")
    np.testing.assert_array_equal(held_weight(model), weight)
    np.testing.assert_allclose(run(model, feeds)[0], wanted[0], rtol=1e-5, atol=1e-5)


def test_quant_raises_the_ir_version_to_one_that_has_its_numbers() -> None:
    model, _, _ = layer()
    model.ir_version = 9
    assert QuantLinear(to="dequantize-linear").run(model)
    assert model.ir_version == 10


def test_quant_groups_as_an_axis_and_turned() -> None:
    """The weight as [outputs, groups, block], scaled by [outputs, groups, 1], then transposed."""
    rng = np.random.default_rng(5)
    values, zeros = rng.integers(0, 16, (8, 4, 32)), rng.integers(0, 16, (8, 4, 1))
    scales = rng.integers(1, 64, (8, 4, 1)) / 64
    packed = pack(values.reshape(8, 128), 4, 1)
    model = ir.from_onnx_text(f"""<ir_version: 10, opset_import: ["": 21]>
    g (float[m,128] x) => (float[m,8] y)
    <int32[8,16] q = {numbers(packed)}, int32[8,4,1] z = {numbers(zeros)},
     float[8,4,1] s = {numbers(scales)}, int64[1] two = {{2}},
     uint32[8] down = {numbers(np.arange(8) * 4)}, uint32 mask = {{15}},
     int64[3] groups = {{8, 4, 32}}, int64[2] flat = {{8, 128}}> {{
        a = Unsqueeze(q, two) b = Cast<to=12>(a) c = BitShift<direction="RIGHT">(b, down)
        e = BitwiseAnd(c, mask) w = Reshape(e, groups) i = Cast<to=6>(w) d = Sub(i, z)
        f = Cast<to=1>(d) p = Mul(f, s) r = Reshape(p, flat) t = Transpose(r)
        y = MatMul(x, t) }}""")
    weight = ((values - zeros) * scales).reshape(8, 128).T
    feeds = {"x": rng.standard_normal((2, 128)).astype(np.float32)}
    assert QuantLinear().run(model)
    assert [n.op_type for n in model.graph] == ["MatMulNBits"]
    np.testing.assert_allclose(run(model, feeds)[0], feeds["x"] @ weight, rtol=1e-4, atol=1e-4)


def test_quant_awq_order_of_columns() -> None:
    """AWQ packs along the columns, eight of them to a number in an order of their own."""
    rng = np.random.default_rng(6)
    values, zeros = rng.integers(0, 16, (64, 16)), rng.integers(0, 16, (2, 16))
    scales = rng.integers(1, 64, (2, 16)) / 64
    order = np.array([0, 2, 4, 6, 1, 3, 5, 7])
    columns = (np.arange(16).reshape(2, 8)[:, order]).reshape(-1)
    model = ir.from_onnx_text(f"""<ir_version: 10, opset_import: ["": 21]>
    g (float[m,64] x) => (float[m,16] y)
    <int32[64,2] q = {numbers(pack(values[:, columns], 4, 1))},
     int32[2,2] qz = {numbers(pack(zeros[:, columns], 4, 1))},
     float[2,16] s = {numbers(scales)}, int64[1] one = {{1}}, int64[1] two = {{2}},
     uint32[8] down = {numbers(np.arange(8) * 4)}, uint32 mask = {{15}},
     int64[16] back = {numbers(np.argsort(columns))}, int64[3] repeated = {{2, 32, 16}},
     int64[2] wide = {{64, 16}}, int64[2] few = {{2, 16}}> {{
        a = Unsqueeze(q, two) b = Cast<to=12>(a) c = BitShift<direction="RIGHT">(b, down)
        e = BitwiseAnd(c, mask) w = Reshape(e, wide) wo = Gather<axis=1>(w, back)
        za = Unsqueeze(qz, two) zb = Cast<to=12>(za) zc = BitShift<direction="RIGHT">(zb, down)
        ze = BitwiseAnd(zc, mask) z = Reshape(ze, few) zo = Gather<axis=1>(z, back)
        zu = Unsqueeze(zo, one) zx = Expand(zu, repeated) zr = Reshape(zx, wide)
        su = Unsqueeze(s, one) sx = Expand(su, repeated) sr = Reshape(sx, wide)
        wf = Cast<to=1>(wo) zf = Cast<to=1>(zr) d = Sub(wf, zf) p = Mul(d, sr)
        y = MatMul(x, p) }}""")
    weight = (values - zeros.repeat(32, 0)) * scales.repeat(32, 0)
    feeds = {"x": rng.standard_normal((2, 64)).astype(np.float32)}
    (wanted,) = run(model, feeds)
    np.testing.assert_allclose(wanted, feeds["x"] @ weight, rtol=1e-4, atol=1e-4)
    assert QuantLinear().run(model)
    assert [n.op_type for n in model.graph] == ["MatMulNBits"]
    np.testing.assert_allclose(run(model, feeds)[0], wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["quant_mod.float16.ts17", "quant_shift.float16.ts18"])
def test_quant_exported_spellings(name: str) -> None:
    model = ir.load(EXPORTS / f"{name}.onnx")
    arrays = np.load(EXPORTS / f"{'.'.join(name.split('.')[:2])}.npz")
    feeds = {key[3:]: arrays[key] for key in arrays.files if key.startswith("in:")}
    wanted = run(model, feeds)
    linears = Counter(n.op_type for n in model.graph)["MatMul"]
    packed = sum(math.prod(v.shape) * 4 for v in _packed(model))
    assert QuantLinear().run(model)
    count = Counter(n.op_type for n in model.graph)
    assert (count["MatMulNBits"], count["MatMul"]) == (linears, 0)
    assert not {"BitShift", "BitwiseAnd", "Mod", "Pow"} & set(count)
    for result, reference in zip(run(model, feeds), wanted, strict=True):
        scale = np.abs(reference).max()
        np.testing.assert_allclose(result, reference, rtol=2e-3, atol=2e-3 * scale)
    held = sum(v.const_value.nbytes for v in model.graph.initializers.values())
    assert held <= 1.1 * packed + _extras(model)


def _packed(model: ir.Model) -> list[ir.Value]:
    return [v for v in model.graph.initializers.values() if v.dtype == D.INT32 and len(v.shape) > 1]


def _extras(model: ir.Model) -> int:
    """Bytes of everything but the numbers and zero points: biases and scales."""
    kinds = (D.FLOAT16, D.INT64)
    return sum(v.const_value.nbytes for v in model.graph.initializers.values() if v.dtype in kinds)


def test_quant_a_scale_that_varies_is_no_weight() -> None:
    model, _, _ = layer()
    x = model.graph.inputs[0]
    node = next(n for n in model.graph if n.op_type == "Mul")
    node.replace_input_with(0, x)
    assert not QuantLinear().run(model)


def test_quant_numbers_without_a_bound_are_refused() -> None:
    model, _, _ = layer()
    for node in model.graph:
        if node.op_type == "BitwiseAnd":
            node.op_type = "BitwiseOr"
    before = ir.to_proto(model).SerializeToString()
    with pytest.raises(Refused, match=r"linear \(MatMul\): it is no product of scales and"):
        QuantLinear().run(model)
    assert ir.to_proto(model).SerializeToString() == before


def test_quant_blocks_too_short_for_one_form() -> None:
    model, weight, feeds = layer(block=8)
    with pytest.raises(Refused, match="do not repeat in blocks of 16 rows or more"):
        QuantLinear().run(model)
    QuantLinear(to="dequantize-linear").run(model)
    assert model.graph[0].attributes["block_size"].as_int() == 8
    np.testing.assert_array_equal(held_weight(model), weight)
    model, weight, feeds = layer(block=4)
    with pytest.raises(Refused, match="do not repeat in blocks of 8 rows or more; choose to=float"):
        QuantLinear(to="dequantize-linear").run(model)
    QuantLinear(to="float").run(model)
    np.testing.assert_allclose(run(model, feeds)[0], feeds["x"] @ weight, rtol=1e-4, atol=1e-4)


def test_quant_a_cast_that_wraps_is_noticed() -> None:
    model, _, _ = layer(8)
    wrap = ir.Node("", "Cast", [], [ir.AttrInt64("to", D.INT8.value)], num_outputs=1)
    back = ir.Node("", "Cast", wrap.outputs, [ir.AttrInt64("to", D.INT32.value)], num_outputs=1)
    sub = next(n for n in model.graph if n.op_type == "Sub")
    wrap.resize_inputs(1)
    wrap.replace_input_with(0, sub.inputs[0])
    wrap.outputs[0].name, back.outputs[0].name = "wrapped", "unwrapped"
    model.graph.insert_before(sub, [wrap, back])
    sub.replace_input_with(0, back.outputs[0])
    with pytest.raises(Refused, match="do not make up what it computes"):
        QuantLinear().run(model)


def test_quant_a_weight_used_twice_and_elsewhere() -> None:
    model, weight, feeds = layer()
    linear = next(n for n in model.graph if n.name == "linear")
    mul = linear.inputs[1]
    extra = ir.Node("", "Abs", [mul], num_outputs=1, name="abs")
    extra.outputs[0].name, extra.outputs[0].type = "abs", ir.TensorType(D.FLOAT)
    model.graph.append(extra)
    model.graph.outputs.append(extra.outputs[0])
    QuantLinear().run(model)
    results = run(model, feeds)
    np.testing.assert_allclose(results[0], feeds["x"] @ weight, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(results[1], np.abs(weight).astype(np.float32))


@pytest.mark.parametrize("order", [False, True], ids=["in order", "act-order"])
def test_quant_floats_where_a_target_has_no_packed_products(order: bool) -> None:
    """TensorRT shifts no words: the weights are written out, to the bit, and that is said."""
    model, weight, feeds = layer(order=order)
    found = Pipeline(target="tensorrt-10.15").run(model, verify=True)
    assert found.model is not None
    assert not {node.op_type for node in found.model.graph} & {"BitShift", "BitwiseAnd"}
    np.testing.assert_array_equal(held_weight(found.model), weight.astype(np.float32))
    (result,) = run(found.model, feeds)
    np.testing.assert_allclose(result, feeds["x"] @ weight, rtol=1e-4, atol=1e-3)
    assert any("they are floats now" in note for note in found.notes)
    others = Pipeline(target="ort-cpu").run(model)
    assert not any("they are floats now" in note for note in others.notes)
