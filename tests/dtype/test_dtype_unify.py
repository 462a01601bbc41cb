"""unify-dtype: one float type takes the place of others, in weights, attributes and values."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from dtype_tools import casts, check, dtypes_left, operators, parse, run, text_of, value

from vlmpass.ir_tools.errors import PipelineError, Refused
from vlmpass.ir_tools.weights import Weight
from vlmpass.passes.dtype.unify_dtype import UnifyDtype

D = ir.DataType
NARROW = {D.BFLOAT16, D.FLOAT16}


def test_unify_weights_are_exact_and_lazy(tmp_path: Path) -> None:
    size = 1 << 28  # elements of a sparse file, more than the test may hold
    with (tmp_path / "w.bin").open("wb") as file:
        file.write(np.arange(4, dtype=np.float32).view(np.uint16)[1::2].tobytes())
        file.truncate(2 * size)
    weight = ir.ExternalTensor(
        "w.bin", 0, 2 * size, D.BFLOAT16, shape=ir.Shape([size]), name="w", base_dir=str(tmp_path)
    )
    model = parse("g (bfloat16[1] x) => (bfloat16[N] y) { y = Mul(x, w) }".replace("w)", "x)"))
    w = ir.Value(name="w", shape=weight.shape, type=ir.TensorType(D.BFLOAT16), const_value=weight)
    model.graph.register_initializer(w)
    model.graph[0].replace_input_with(1, w)
    UnifyDtype().run(model)
    assert isinstance(w.const_value, Weight)
    assert (w.const_value.dtype, w.dtype, w.const_value.nbytes) == (D.FLOAT, D.FLOAT, 4 * size)
    np.testing.assert_array_equal(w.const_value.read(((0, 4),)), np.arange(4, dtype=np.float32))


def test_unify_every_attribute_that_carries_a_type() -> None:
    model = parse(
        """g (bfloat16[2,2] x, float[2,2] f, int64[2] s, bfloat16 one, int64 n) => (y) {
        a = Cast<to=16>(s)
        b = EyeLike<dtype=16>(x)
        c = RandomNormalLike<dtype=16>(x)
        d = RandomUniform<dtype=16, shape=[2]>()
        e = ConstantOfShape<value = bfloat16[1] {b(1)}>(s)
        h = Constant<value = float16 {h(2)}>()
        i = Bernoulli<dtype=16>(x)
        j = HannWindow<output_datatype=16>(n)
        k, m = LayerNormalization<stash_type=16>(x, one)
        q = SequenceEmpty<dtype=16>()
        r = SequenceInsert(q, x)
        t = SequenceAt(r, n)
        u = CastLike(f, x)
        y = Sum(a, b, c, d, e, h, i, j, k, t, u, m) }""",
        opset=22,
    )
    UnifyDtype().run(model)
    assert not dtypes_left(model) & NARROW
    assert text_of(model, "y") == "tensor(float)"
    assert text_of(model, "q") == "seq(tensor(float))"
    assert "CastLike" not in operators(model)  # it became a no-op
    assert not UnifyDtype().run(model)


def test_unify_optional_type_attribute() -> None:
    model = parse(
        "g (bool b) => (o) { o = Optional<type = optional_type>() }".replace(
            "Optional<type = optional_type>()", "Identity(b)"
        )
    )
    node = model.graph[0]
    node.op_type = "Optional"
    node.replace_input_with(0, None)
    kind = ir.TypeAndShape(ir.TensorType(D.BFLOAT16), ir.Shape([2]))
    node.attributes["type"] = ir.AttrTypeProto("type", kind)
    UnifyDtype().run(model)
    assert text_of(model, "o") == "optional(tensor(float))"


def test_unify_leaves_quantised_tensors_indices_and_shapes() -> None:
    weights = ", ".join(["136"] * 64)  # every 4-bit number is 8, which stands for zero
    model = parse(
        f"""g (bfloat16[2,32] x, int64[1] i) => (bfloat16[2,4] y, d, g)
        <uint8[4,1,16] W = {{{weights}}}, bfloat16[4] scales = {{{", ".join(["b(1)"] * 4)}}},
         int8[2] q = {{1, 2}}, bfloat16 s = {{b(2)}}> {{
        y = com.microsoft.MatMulNBits<K=32, N=4, bits=4, block_size=32>(x, W, scales)
        d = DequantizeLinear(q, s) g = Gather(x, i) }}""",
        opset=21,
    )
    UnifyDtype().run(model)
    assert (value(model, "W").dtype, value(model, "q").dtype) == (D.UINT8, D.INT8)
    assert value(model, "scales").const_value.dtype == D.FLOAT
    assert not dtypes_left(model) & NARROW
    results = run(model, {"x": np.ones((2, 32), np.float32), "i": np.array([0])})
    np.testing.assert_array_equal(results["y"], np.zeros((2, 4)))
    np.testing.assert_array_equal(results["d"], [2, 4])


def test_unify_cures_what_was_ill_typed() -> None:
    model = parse(
        """g (bfloat16[1,1,2,2] x) => (bfloat16[1,1,2,2] y)
        <bfloat16[1,1,1,1] w = {b(2)}, float[1] b = {1}> { c = Conv(x, w) y = Add(c, b) }"""
    )
    UnifyDtype().run(model)
    check(model)
    np.testing.assert_array_equal(
        run(model, {"x": np.ones((1, 1, 2, 2), np.float32)})["y"], np.full((1, 1, 2, 2), 3)
    )


def test_unify_refuses_what_stays_ill_typed() -> None:
    model = parse(
        "g (bfloat16[9] x, int32[1] a, int64[1] b) => (bfloat16[N] y) { [s] y = Slice(x, a, b) }"
    )
    with pytest.raises(Refused, match=r"s \(Slice\): type variable Tind is bound to different"):
        UnifyDtype().run(model)


def test_unify_bit_patterns_keep_their_type() -> None:
    model = parse(
        "g (bfloat16[2] x) => (uint16[2] y) { a = Neg(x) y = BitCast<to=4>(a) }", opset=26
    )
    UnifyDtype().run(model)
    assert operators(model) == ["Neg", "Cast", "BitCast"]
    assert text_of(model, "y") == "tensor(uint16)"
    check(model)


def test_unify_unknown_operators_follow() -> None:
    model = parse("g (bfloat16[2] x) => (bfloat16[2] y) { y = my.Mystery(x) }")
    UnifyDtype().run(model)
    assert text_of(model, "y") == "tensor(float)"
    assert operators(model) == ["my"] or operators(model) == ["Mystery"]


def test_unify_keeps_fixed_types_and_what_feeds_them() -> None:
    model = parse(
        """g (float[1,1,4,4] x) => (float[1,1,N,M] y) {
        s = Shape(x) f = Cast<to=1>(s) t = Constant<value_floats=[1.0, 1.0, 2.0, 2.0]>()
        one = Div(f, f) sc = Mul(one, t) y = Resize<mode="nearest">(x, , sc) }"""
    )
    UnifyDtype(to="float16", from_=("float32",)).run(model)
    check(model)
    assert casts(model) == 1
    assert text_of(model, "sc") == "tensor(float)"
    assert text_of(model, "y") == "tensor(float16)"


def test_unify_initializer_with_a_fixed_and_a_free_user_is_doubled() -> None:
    model = parse(
        """g (float[1,1,4,4] x, float[4] v) => (float[1,1,N,M] y, float[4] z)
        <float[4] sc = {1, 1, 2, 2}> { y = Resize<mode="nearest">(x, , sc) z = Mul(v, sc) }"""
    )
    UnifyDtype(to="float16", from_=("float32",)).run(model)
    check(model)
    assert casts(model) == 0
    assert {v.dtype for v in model.graph.initializers.values()} == {D.FLOAT, D.FLOAT16}


def test_unify_nothing_to_do_changes_nothing() -> None:
    model = parse("g (float[2] x) => (float[2] y) { y = Relu(x) }")
    before = ir.to_proto(model).SerializeToString()
    assert not UnifyDtype().run(model)
    assert ir.to_proto(model).SerializeToString() == before


def test_unify_text_and_bad_options() -> None:
    assert str(UnifyDtype()) == "unify-dtype"
    assert str(UnifyDtype(from_=("float16",), keep_io=True)) == (
        "unify-dtype{from=[float16] keep-io=true}"
    )
    with pytest.raises(PipelineError, match="nothing is left to convert"):
        UnifyDtype(from_=("float32",))
    with pytest.raises(PipelineError):
        UnifyDtype(to="int8")  # type: ignore[arg-type]
