"""set-dims and name-dims."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from tests.passes.simplifying import operators, proto_of, run, simplify
from vlmpass.ir_tools.errors import Refused
from vlmpass.passes.dims.name_dims import NameDims
from vlmpass.passes.dims.set_dims import SetDims
from vlmpass.passes.pipeline.base import OptionError

RNG = np.random.default_rng(3)


def image(batch: int, height: int, width: int) -> dict[str, np.ndarray]:
    return {"x": RNG.standard_normal((batch, 3, height, width)).astype(np.float32)}


def shape_of(value: ir.Value) -> list[int | str | None]:
    assert value.shape is not None
    return [dim if isinstance(dim, int) else dim.value for dim in value.shape]


# --- set-dims ---

DYNAMIC = """g (float[batch,seq] x, float[batch,"past+seq"] m) => (float[batch,2,k] y) {
    s = Shape(x)  z = Constant<value_ints=[0]>()  o = Constant<value_ints=[1]>()
    b = Gather(s, z)  n = Gather(s, o)  two = Constant<value_ints=[2]>()
    h = Div(n, two)  t = Concat<axis=0>(b, two, h)  r = Reshape(x, t)  q = Neg(m)  y = Neg(r) }"""


def test_set_by_name_folds_the_shape_chain_and_expressions() -> None:
    proto = proto_of(DYNAMIC)
    feeds = {"x": np.ones((2, 6), np.float32), "m": np.ones((2, 9), np.float32)}
    model = simplify(proto, [SetDims(dims=(("batch", 2), ("seq", 6), ("past", 3)))], feeds)
    assert operators(model) == ["Reshape", "Neg", "Neg"]
    assert [shape_of(value) for value in model.graph.inputs] == [[2, 6], [2, 9]]
    assert shape_of(model.graph.outputs[0]) == [2, 2, 3]


def test_set_one_of_several_names_keeps_the_others_dynamic() -> None:
    model = simplify(proto_of(DYNAMIC), [SetDims(dims=(("batch", 2),))])
    assert [shape_of(value) for value in model.graph.inputs] == [[2, "seq"], [2, "past + seq"]]


def test_set_by_place() -> None:
    model = simplify(proto_of(DYNAMIC), [SetDims(dims=(("x:0", 2), ("x:-1", 4)))])
    assert shape_of(model.graph.inputs[0]) == [2, 4]


def test_set_to_zero() -> None:
    proto = proto_of("g (float[n,3] x) => (float[m,3] y) { y = Concat<axis=0>(x, x) }")
    model = simplify(proto, [SetDims(dims=(("n", 0),))], {"x": np.zeros((0, 3), np.float32)})
    assert shape_of(model.graph.outputs[0]) == [0, 3]


def test_unknown_name_suggests_one() -> None:
    with pytest.raises(OptionError, match="did you mean 'batch'"):
        SetDims(dims=(("batc", 1),)).run(ir.from_proto(proto_of(DYNAMIC)))


def test_negative_size_and_fixed_axis_are_errors() -> None:
    with pytest.raises(OptionError, match="-1"):
        SetDims(dims=(("batch", -1),))
    proto = proto_of("g (float[2,n] x) => (float[2,n] y) { y = Neg(x) }")
    with pytest.raises(OptionError, match="fixed size 2"):
        SetDims(dims=(("x:0", 3),)).run(ir.from_proto(proto))


def test_a_size_that_the_model_cannot_run_at_is_refused() -> None:
    proto = proto_of("""g (float[n,2] x) => (float[n,2] y) <float[3,2] w = {1,2,3,4,5,6}>
        { y = Add(x, w) }""")
    with pytest.raises(Refused, match="3 and 5"):
        SetDims(dims=(("n", 5),)).run(ir.from_proto(proto))
    simplify(proto, [SetDims(dims=(("n", 3),))], {"x": np.ones((3, 2), np.float32)})


def test_size_does_not_explode() -> None:
    proto = proto_of("""g (float[n,4] x) => (float[n,4] y) {
        s = Shape(x)  f = ConstantOfShape<value: tensor = float[1] {2.0}>(s)  y = Add(x, f) }""")
    model = ir.from_proto(proto)
    SetDims(dims=(("n", 5000),)).run(model)
    assert len(ir.to_proto(model).SerializeToString()) < 1000


# --- name-dims ---


def named(
    proto: onnx.ModelProto, dims: Mapping[str, str], *feeds: Mapping[str, np.ndarray]
) -> ir.Model:
    """Name axes; the traced size gives the same numbers as before, the others run."""
    model = ir.from_proto(proto)
    pass_ = NameDims(dims=tuple(dims.items()))
    assert pass_.run(model)
    assert not pass_.run(model)
    after = ir.to_proto(model)
    onnx.checker.check_model(after, full_check=True)
    used = {value for node in model.graph for value in node.inputs}
    assert used.issuperset(model.graph.initializers.values())
    traced, *others = feeds
    for a, b in zip(run(proto, traced), run(after, traced), strict=True):
        np.testing.assert_array_equal(a, b)
    for feed in others:
        run(after, feed)
    return model


PATCHES = """g (float[1,3,8,8] x) => (float[1,4,8] y)
    <float[1] w = {0}, int64[3] t = {1,8,4}> {
    c = Conv<kernel_shape=[4,4], strides=[4,4]>(x, w)  r = Reshape(c, t)
    y = Transpose<perm=[0,2,1]>(r) }"""


def with_weight(text: str, *shape: int, name: str = "w") -> onnx.ModelProto:
    proto = proto_of(text)
    for index, tensor in enumerate(proto.graph.initializer):
        if tensor.name == name:
            array = RNG.standard_normal(shape).astype(np.float32)
            proto.graph.initializer[index].CopyFrom(onnx.numpy_helper.from_array(array, name))
    return proto


def test_baked_reshape_of_a_vision_transformer() -> None:
    proto = with_weight(PATCHES, 8, 3, 4, 4)
    model = named(
        proto,
        {"x:0": "batch", "x:2": "height", "x:3": "width"},
        image(1, 8, 8),
        image(4, 8, 8),
        image(1, 16, 12),
        image(3, 12, 4),
    )
    assert shape_of(model.graph.inputs[0]) == ["batch", 3, "height", "width"]
    assert shape_of(model.graph.outputs[0])[0] == "batch"
    (reshape,) = [node for node in model.graph if node.op_type == "Reshape"]
    target = ir.convenience.get_const_tensor(reshape.inputs[1])
    assert target is not None
    assert target.numpy().tolist() == [0, 8, -1]


def test_each_sample_of_a_batch_is_computed_as_before() -> None:
    proto = with_weight(PATCHES, 8, 3, 4, 4)
    model = named(proto, {"x:0": "batch"}, image(1, 8, 8))
    feed = image(3, 8, 8)
    (together,) = run(ir.to_proto(model), feed)
    alone = [run(proto, {"x": feed["x"][i : i + 1]})[0] for i in range(3)]
    np.testing.assert_allclose(together, np.concatenate(alone), rtol=1e-6)


ATTENTION = """g (float[1,6,8] x) => (float[1,6,8] y)
    <int64[4] heads = {1,6,2,4}, int64[3] back = {1,6,8}, int64[3] flat = {-1,6,4}> {
    q = Reshape(x, heads)  p = Transpose<perm=[0,2,1,3]>(q)  f = Reshape(p, flat)
    k = Transpose<perm=[0,2,1]>(f)  s = MatMul(f, k)  m = MatMul(s, f)
    four = Constant<value_ints=[1,2,6,4]>()  u = Reshape(m, four)
    v = Transpose<perm=[0,2,1,3]>(u)  y = Reshape(v, back) }"""


def tokens(batch: int, seq: int) -> dict[str, np.ndarray]:
    return {"x": RNG.standard_normal((batch, seq, 8)).astype(np.float32)}


def test_heads_merged_with_the_batch_are_taken_apart_again() -> None:
    proto = proto_of(ATTENTION)
    dims = {"x:0": "batch", "x:1": "seq"}
    model = named(proto, dims, tokens(1, 6), tokens(3, 6), tokens(1, 9), tokens(2, 5))
    feed = tokens(3, 6)
    (together,) = run(ir.to_proto(model), feed)
    alone = [run(proto, {"x": feed["x"][i : i + 1]})[0] for i in range(3)]
    np.testing.assert_allclose(together, np.concatenate(alone), rtol=1e-5)


def test_token_that_was_expanded_to_the_batch() -> None:
    proto = proto_of("""g (float[1,6,2] x) => (float[1,7,2] y)
        <float[1,1,2] cls = {1.0, 2.0}, int64[3] t = {1,1,2}> {
        e = Expand(cls, t)  y = Concat<axis=1>(e, x) }""")
    feeds = [{"x": np.ones((batch, 6, 2), np.float32)} for batch in (1, 4)]
    model = named(proto, {"x:0": "batch"}, *feeds)
    assert shape_of(model.graph.outputs[0]) == ["batch", 7, 2]


def test_token_that_was_folded_at_a_batch_of_two() -> None:
    proto = proto_of("""g (float[2,6,2] x) => (float[2,7,2] y)
        <float[2,1,2] cls = {1.0, 2.0, 1.0, 2.0}> { y = Concat<axis=1>(cls, x) }""")
    named(proto, {"x:0": "b"}, *({"x": np.ones((n, 6, 2), np.float32)} for n in (2, 5)))


def test_expand_to_the_traced_size() -> None:
    proto = proto_of("""g (float[2,1,3] x) => (float[2,4,3] y) <int64[3] t = {2,4,3}>
        { y = Expand(x, t) }""")
    named(proto, {"x:0": "b"}, *({"x": np.ones((n, 1, 3), np.float32)} for n in (2, 5)))


def test_sizes_that_need_arithmetic() -> None:
    proto = proto_of("""g (float[1,2,6,4] x) => (float[1,6,4,2] y)
        <int64[3] t = {1,2,24}, int64[4] u = {1,6,4,2}> {
        a = Reshape(x, t)  b = Transpose<perm=[0,2,1]>(a)  y = Reshape(b, u) }""")
    dims = {"x:0": "batch", "x:2": "h", "x:3": "w"}
    feeds = [
        {"x": RNG.standard_normal((b, 2, h, w)).astype(np.float32)}
        for b, h, w in ((1, 6, 4), (3, 5, 7))
    ]
    model = named(proto, dims, *feeds)
    (out,) = run(ir.to_proto(model), feeds[1])
    np.testing.assert_array_equal(out, feeds[1]["x"].transpose(0, 2, 3, 1))


REFUSED = {
    "position embedding": (
        """g (float[1,6,2] x) => (float[1,6,2] y) <float[1,6,2] pos = {1,2,3,4,5,6,7,8,9,1,2,3}>
            { y = Add(x, pos) }""",
        {"x:1": "seq"},
        "'pos' has a traced size baked in",
    ),
    "slice to the traced size": (
        """g (float[1,6,2] x) => (float[1,6,2] y)
            <int64[1] a = {0}, int64[1] b = {6}, int64[1] c = {1}> { y = Slice(x, a, b, c) }""",
        {"x:1": "seq"},
        "may be the traced size 6",
    ),
    "one axis of ones or the other": (
        """g (float[1,6,2] x) => (float[1,1,6,2] y) <int64[4] t = {1,1,6,2}> {
            y = Reshape(x, t) }""",
        {"x:0": "batch"},
        "cannot be told",
    ),
    "split axis": (
        """g (float[1,6,2] x) => (float[1,2,3,2] y) <int64[4] t = {1,2,3,2}> {
            y = Reshape(x, t) }""",
        {"x:1": "seq"},
        "cannot be told",
    ),
    "weights of a fixed length": (
        """g (float[1,6] x) => (float[1,2] y) <float[6,2] w = {1,2,3,4,5,6,7,8,9,1,2,3}>
            { y = MatMul(x, w) }""",
        {"x:1": "seq"},
        "'w' has a traced size baked in",
    ),
    "function": (
        """<ir_version: 9, opset_import: ["": 18, "f": 1]>
        g (float[1,6] x) => (float[1,6] y) { y = f.same(x) }
        <domain: "f", opset_import: ["": 18]> same (a) => (b) { b = Neg(a) }""",
        {"x:0": "batch"},
        "run inline-functions first",
    ),
    "parts of the batch that differ": (
        """g (float[2,6] x) => (float[2,7] y) <float[2,1] k = {1,2}> {
            y = Concat<axis=1>(k, x) }""",
        {"x:0": "batch"},
        "'k' has a traced size baked in",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_proven_is_refused_by_name(case: str) -> None:
    text, dims, reason = REFUSED[case]
    with pytest.raises(Refused, match=reason):
        NameDims(dims=tuple(dims.items())).run(ir.from_proto(proto_of(text)))


def test_dynamic_axes_are_only_renamed() -> None:
    proto = proto_of("g (float[n,3] x) => (float[n,3] y) { y = Neg(x) }")
    model = ir.from_proto(proto)
    assert NameDims(dims=(("x:0", "rows"),)).run(model)
    assert shape_of(model.graph.inputs[0]) == ["rows", 3]
    assert shape_of(model.graph.outputs[0]) == ["rows", 3]


def test_bad_places_and_names() -> None:
    proto = proto_of("g (float[2,3] x) => (float[2,3] y) { y = Neg(x) }")
    with pytest.raises(OptionError, match="x:0, x:1"):
        NameDims(dims=(("x:7", "n"),)).run(ir.from_proto(proto))
    with pytest.raises(OptionError, match="no name"):
        NameDims(dims=(("x:0", "3"),))
    with pytest.raises(OptionError, match="both 2 and 3"):
        NameDims(dims=(("x:0", "n"), ("x:1", "n"))).run(ir.from_proto(proto))
