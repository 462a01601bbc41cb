"""unify-dtype: one float type takes the place of others, and no needless Cast is left."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from dtype_tools import (
    casts,
    check,
    count,
    dtypes_left,
    export,
    operators,
    parse,
    relative_error,
    run,
    text_of,
    value,
)

from vlmpass.ir_tools.errors import PipelineError, Refused
from vlmpass.ir_tools.weights import Weight
from vlmpass.passes.unify_dtype import UnifyDtype

D = ir.DataType
NARROW = {D.BFLOAT16, D.FLOAT16}

# File, and the Casts that must stay. By hand: every Cast between two float types goes; what stays
# goes from integers to floats or booleans, or between integers.
EXPORTED = [
    # position ids to float for the rotary angles
    ("decoder.bfloat16.ts17", 1),
    ("decoder.bfloat16.dyn18", 1),
    ("decoder.bfloat16.dyn23", 1),
    ("decoder.float16.ts17", 1),
    # nothing: its two were between floats
    ("vision.bfloat16.dyn18", 0),
    # the attention mask to float
    ("text.float16.ts17", 1),
    # integer arithmetic of the dequantisation
    ("quant_mod.float16.ts17", None),
    ("quant_shift.float16.ts18", None),
]


@pytest.mark.parametrize(("name", "left"), EXPORTED)
def test_unify_exported_models(name: str, left: int | None) -> None:
    model, feeds, wanted = export(name)
    interface = [v.name for v in (*model.graph.inputs, *model.graph.outputs)]
    weights = set(model.graph.initializers)
    assert UnifyDtype().run(model)
    check(model)
    assert not dtypes_left(model) & NARROW
    assert [v.name for v in (*model.graph.inputs, *model.graph.outputs)] == interface
    assert set(model.graph.initializers) == weights
    for node in model.graph:
        if node.op_type == "Cast":
            sides = {node.inputs[0].dtype, node.outputs[0].dtype}
            assert any(not side.is_floating_point() for side in sides)
    if left is not None:
        assert casts(model) == left
    if not name.startswith("quant"):
        results = run(model, {v.name: feeds[v.name] for v in model.graph.inputs})
        for key, reference in wanted.items():
            # The vision export holds GELU's constants rounded to bfloat16.
            assert relative_error(results[key], reference) < (3e-4 if "vision" in name else 1e-4)
    assert not UnifyDtype().run(model)
    assert casts(model) == left or left is None


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


def test_unify_removes_casts_that_became_nothing() -> None:
    model = parse(
        """g (bfloat16[2] x) => (bfloat16[2] y) {
        w = Cast<to=1>(x) v = Sqrt(w) n = Cast<to=16>(v) l = Cast<to=11>(n) b = Cast<to=16>(l)
        y = Mul(b, x) }"""
    )
    UnifyDtype().run(model)
    assert operators(model) == ["Sqrt", "Mul"]  # DOUBLE and back loses nothing either
    check(model)


def test_unify_cast_that_loses_stays() -> None:
    model = parse("g (float16[2] x) => (y) { i = Cast<to=7>(x) y = Cast<to=10>(i) }")
    UnifyDtype().run(model)
    assert operators(model) == ["Cast", "Cast"]
    np.testing.assert_array_equal(run(model, {"x": np.float32([1.5, -2.5])})["y"], [1, -2])


def test_unify_cast_between_input_and_output_becomes_identity() -> None:
    model = parse("g (float16[2] x) => (float[2] y) { y = Cast<to=1>(x) }")
    UnifyDtype().run(model)
    assert operators(model) == ["Identity"]
    assert [v.name for v in (*model.graph.inputs, *model.graph.outputs)] == ["x", "y"]
    check(model)


def test_unify_two_outputs_that_become_one_value_keep_their_names() -> None:
    model = parse(
        "g (float16[2] x) => (float16[2] a, float[2] b) { a = Relu(x) b = Cast<to=1>(a) }"
    )
    UnifyDtype().run(model)
    assert [v.name for v in model.graph.outputs] == ["a", "b"]
    check(model)


def test_unify_keep_io_has_one_cast_for_each_input_and_output() -> None:
    text = """g (float[2] x, int64 i) => (float[2] y, int64 j) {
        a = Relu(x) b = Mul(a, x) y = Add(a, b) j = Identity(i) }"""
    model = parse(text)
    run_pass = UnifyDtype(to="float16", from_=("float32",), keep_io=True)
    assert run_pass.run(model)
    check(model)
    assert operators(model) == ["Cast", "Relu", "Mul", "Add", "Cast", "Identity"]
    assert [v.dtype for v in (*model.graph.inputs, *model.graph.outputs)] == [
        D.FLOAT, D.INT64, D.FLOAT, D.INT64,
    ]  # fmt: skip
    assert [v.name for v in model.graph.outputs] == ["y", "j"]
    assert all("vlmpass.reason" in n.metadata_props for n in model.graph if n.op_type == "Cast")
    x = np.float32([0.5, -3])
    np.testing.assert_array_equal(
        run(model, {"x": x, "i": np.array(3)})["y"],
        run(parse(text), {"x": x, "i": np.array(3)})["y"],
    )
    before = ir.to_proto(model).SerializeToString()
    assert not run_pass.run(model)
    assert ir.to_proto(model).SerializeToString() == before


def test_unify_keep_io_of_an_input_that_is_an_output() -> None:
    model = parse("g (float16[2] x) => (float16[2] x, float16[2] y) { y = Relu(x) }")
    UnifyDtype(keep_io=True).run(model)
    assert [v.dtype for v in model.graph.outputs] == [D.FLOAT16, D.FLOAT16]
    assert count(model)["Cast"] == 2
    check(model)


def test_unify_keep_io_refuses_sequences_by_name() -> None:
    model = parse("g (seq(float16[2]) x, int64 i) => (float16[2] y) { y = SequenceAt(x, i) }")
    with pytest.raises(Refused, match="'x' is seq"):
        UnifyDtype(keep_io=True).run(model)


ROUND = """g (float[4] x) => (float[4] y) {
    n = Cast<to=16>(x) w = Cast<to=1>(n) y = Mul(w, w) }"""


def test_unify_rounding_goes_or_is_kept_on_request() -> None:
    model = parse(ROUND)
    UnifyDtype().run(model)
    assert operators(model) == ["Mul"]
    model = parse(ROUND)
    assert not UnifyDtype(keep_rounding=True).run(model)
    assert operators(model) == ["Cast", "Cast", "Mul"]
    x = np.float32([1.001, 2.003, 3.1, -4.7])
    rounded = (x.view(np.uint32) + 0x7FFF + ((x.view(np.uint32) >> 16) & 1) & 0xFFFF0000).view(
        np.float32
    )
    np.testing.assert_array_equal(run(model, {"x": x})["y"], rounded * rounded)


def test_unify_kept_rounding_serves_narrow_users_too() -> None:
    model = parse(
        """g (float[4] x, bfloat16[4] s) => (float[4] y, bfloat16[4] z) {
        n = Cast<to=16>(x) z = Mul(n, s) w = Cast<to=1>(n) y = Relu(w) }"""
    )
    UnifyDtype(keep_rounding=True).run(model)
    check(model)
    assert count(model)["Cast"] == 2  # one round trip, whose result both users share
    assert text_of(model, "z") == "tensor(float)"


def test_unify_masks_keep_their_number() -> None:
    model = parse(
        """g (bool[2] m, float16[2] s) => (float16[2] y) {
        c = Constant<value = float16 {h(-65504)}>() y = Where(m, s, c) }"""
    )
    UnifyDtype().run(model)
    np.testing.assert_array_equal(
        run(model, {"m": np.array([True, False]), "s": np.float32([1, 1])})["y"], [1, -65504]
    )


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


def test_unify_subgraphs_and_carried_values() -> None:
    model = parse(
        """g (int64 n, bool c, bfloat16[2] x) => (bfloat16[2] y, bfloat16[2] z) {
        o = Loop (n, c, x) <body = b (int64 i, bool k, bfloat16[2] s)
            => (bool k2, bfloat16[2] s2) <bfloat16 two = {b(2)}>
            { k2 = Identity(k) s2 = Mul(s, two) }>
        y = Identity(o)
        z = If (c) <then_branch = t () => (bfloat16[2] a) { a = Relu(x) },
            else_branch = e () => (bfloat16[2] d) { f = Cast<to=1>(x) d = Cast<to=16>(f) }> }"""
    )
    UnifyDtype().run(model)
    check(model)
    assert not dtypes_left(model) & NARROW
    feeds = {"n": np.array(3), "c": np.array(True), "x": np.float32([1, 2])}
    np.testing.assert_array_equal(run(model, feeds)["y"], [8, 16])
    feeds["c"] = np.array(False)
    np.testing.assert_array_equal(run(model, feeds)["z"], [1, 2])  # an outer value needs Identity


FUNCTIONS = """
<domain: "my", opset_import: ["": 18, "my": 1]>
Scale <to, eps: float = 0.5> (a) => (b) {
    c = Constant<value_float: float = @eps>() d = Cast<to: int = @to>(c) b = Mul(a, d) }
<domain: "my", opset_import: ["": 18, "my": 1]>
Outer <dtype: int = 16> (a) => (b) {
    w = Constant<value = bfloat16[2] {b(1), b(3)}>()
    s = my.Scale<to: int = @dtype>(a) b = Mul(s, w) }
"""


def test_unify_functions_and_the_types_their_calls_pass() -> None:
    model = parse(
        """g (bfloat16[2] x) => (bfloat16[2] y, bfloat16[2] z) {
        y = my.Outer(x) z = my.Scale<to=16>(x) }""",
        extra=FUNCTIONS,
    )
    UnifyDtype().run(model)
    check(model)
    assert not dtypes_left(model) & NARROW
    assert model.functions["my", "Outer", ""].attributes["dtype"].as_int() == D.FLOAT
    results = run(model, {"x": np.float32([1, 2])})
    np.testing.assert_array_equal(results["y"], [0.5, 3])
    np.testing.assert_array_equal(results["z"], [0.5, 1])
    assert not UnifyDtype().run(model)


def test_unify_function_numbers_to_float16() -> None:
    model = parse("g (float[2] x) => (float[2] z) { z = my.Scale<to=1>(x) }", extra=FUNCTIONS)
    UnifyDtype(to="float16", from_=("float32",)).run(model)
    check(model)
    result = run(model, {"x": np.float16([1, 2])})["z"]
    assert result.dtype == np.float16
    np.testing.assert_array_equal(result, [0.5, 1])


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


def test_unify_to_float16_fits_masks_and_never_makes_nan(caplog: pytest.LogCaptureFixture) -> None:
    model = parse(
        """g (bool[1,3] m, float[1,3] s) => (float[1,3] y) {
        [low] c = Constant<value = float {-3.4028235e38}>() a = Where(m, s, c)
        b = Add(a, c) y = Softmax(b) }"""
    )
    with caplog.at_level(logging.WARNING):
        UnifyDtype(to="float16", from_=("float32",)).run(model)
    assert "low (Constant)" in caplog.text
    result = run(model, {"m": np.zeros((1, 3), bool), "s": np.float16([[1, 2, 3]])})["y"]
    np.testing.assert_allclose(result, np.full((1, 3), 1 / 3), rtol=1e-3)


@pytest.mark.parametrize(
    ("number", "why"), [("70000.0", "ends at 65504"), ("1e-12", "become zero")]
)
def test_unify_to_float16_refuses_numbers_it_cannot_hold(number: str, why: str) -> None:
    model = parse(f"g (float[2] x) => (float[2] y) <float k = {{{number}}}> {{ y = Add(x, k) }}")
    with pytest.raises(Refused, match=why) as refused:
        UnifyDtype(to="float16", from_=("float32",)).run(model)
    assert refused.value.refusals[0].node == "initializer k"


def test_unify_to_float16_keeps_infinity_and_reports_zeros(
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = parse("g (float[3] x) => (float[3] y) <float[3] k = {1e-9, 1, 2}> { y = Add(x, k) }")
    value(model, "k").const_value = ir.tensor(np.float32([1e-9, np.inf, 2]), name="k")
    with caplog.at_level(logging.WARNING):
        UnifyDtype(to="float16", from_=("float32",)).run(model)
    assert "initializer k" in caplog.text
    np.testing.assert_array_equal(value(model, "k").const_value.numpy(), [0, np.inf, 2])


def test_unify_bfloat16_mask_does_not_become_infinite() -> None:
    model = parse("g (float[2] x) => (float[2] y) <float k = {-3.4028235e38}> { y = Add(x, k) }")
    UnifyDtype(to="bfloat16", from_=("float32",)).run(model)
    assert np.isfinite(float(value(model, "k").const_value.numpy()))


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
