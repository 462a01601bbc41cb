"""Compositions of lazy operators against the same in numpy, whatever the shapes and types."""

import copy
import math
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlmpass.ir_tools.errors import ModelError
from vlmpass.ir_tools.weights import (
    StoredWeight,
    Tally,
    as_weight,
    cast,
    columns,
    concat,
    evaluate,
    reshape,
    rows,
    scale,
    take,
    transpose,
)
from vlmpass.ir_tools.weights.packing import pack, unpack

D = ir.DataType
DTYPES = [
    *(D.FLOAT, D.FLOAT16, D.BFLOAT16, D.DOUBLE, D.FLOAT8E4M3FN, D.FLOAT8E5M2FNUZ),
    *(D.INT64, D.INT32, D.UINT16, D.INT8, D.BOOL, D.COMPLEX64, D.FLOAT8E8M0),
    *(D.INT4, D.UINT4, D.INT2, D.UINT2, D.FLOAT4E2M1, D.FLOAT6E2M3, D.FLOAT6E3M2),
]

STEPS = ["cast", "take", "transpose", "concat", "scale", "reshape"]


def random_array(shape, dtype, seed=0):
    """Random patterns of a type, without NaN so that arrays can be compared."""
    random = np.random.default_rng(seed)
    if dtype == D.BOOL:
        return random.integers(0, 2, shape).astype(bool)
    if dtype == D.COMPLEX64:
        return (random.standard_normal(shape) + 1j).astype(np.complex64)
    bits = random.integers(0, 1 << min(8, dtype.bitwidth), shape).astype(np.uint8)
    if dtype.bitwidth <= 8:
        array = bits.view(dtype.numpy()).copy()
        return np.where(np.isnan(array.astype(np.float32)), np.ones(1, array.dtype), array)
    return (random.standard_normal(shape) * 100).astype(dtype.numpy())


def packed(array, dtype):
    return pack(array, dtype).tobytes() if dtype.bitwidth < 8 else array.tobytes()


def stored(tmp_path, array, dtype, offset=0, name="w"):
    path = tmp_path / f"{name}.bin"
    path.write_bytes(b"\xa5" * offset + packed(array, dtype) + b"\x5a" * 3)
    return StoredWeight(
        path.name, offset, None, dtype, shape=ir.Shape(array.shape), name=name, base_dir=tmp_path
    )


def agree(weight, array):
    """All ways to evaluate a weight give the array."""
    assert tuple(weight.shape) == array.shape
    assert weight.dtype.numpy() == array.dtype
    assert weight.size == array.size
    out = weight.numpy()
    assert out.dtype == array.dtype
    assert out.tobytes() == array.tobytes()
    data = packed(np.ascontiguousarray(array), weight.dtype)
    assert weight.nbytes == len(data)
    assert b"".join(weight.chunks()) == data
    assert weight.tobytes() == data
    image = bytearray(len(data))
    seen = 0
    for at, piece in weight.pieces():
        image[at : at + len(piece)] = piece
        seen += len(piece)
    assert (bytes(image), seen) == (data, len(data))
    where = weight.file_range()
    if where is not None:
        assert Path(where.path).read_bytes()[where.offset :][: where.length] == data


@st.composite
def compositions(draw):
    """A shape, a type, and steps, each a function of a weight and one of an array."""
    dtype = draw(st.sampled_from(DTYPES))
    shape = tuple(draw(st.lists(st.integers(0, 9), min_size=0, max_size=4)))
    steps = draw(st.lists(st.sampled_from(STEPS), max_size=6))
    return shape, dtype, steps, draw(st.integers(0, 2**32 - 1))


def apply_step(step, weight, array, random):
    rank = array.ndim
    if step == "cast" and weight.dtype.is_floating_point():
        to = [D.FLOAT, D.FLOAT16, D.BFLOAT16, D.DOUBLE][random.integers(4)]
        with np.errstate(all="ignore"):
            return cast(weight, to), array.astype(to.numpy())
    if step == "take" and rank:
        axis = int(random.integers(rank))
        start, stop = sorted(int(v) for v in random.integers(0, array.shape[axis] + 1, 2))
        index = (slice(None),) * axis + (slice(start, stop),)
        return take(weight, axis, start, stop), array[index]
    if step == "transpose":
        perm = [int(axis) for axis in random.permutation(rank)]
        return transpose(weight, perm), array.transpose(perm)
    if step == "concat" and rank:
        return apply_concat(weight, array, random)
    if step == "scale" and weight.dtype in (D.FLOAT, D.FLOAT16, D.BFLOAT16, D.DOUBLE):
        shape = tuple(1 if random.integers(2) else size for size in array.shape)
        wide = np.float64 if weight.dtype == D.DOUBLE else np.float32
        factor = random.standard_normal(shape).astype(wide)
        with np.errstate(all="ignore"):
            return scale(weight, factor), (array.astype(wide) * factor).astype(array.dtype)
    if step == "reshape":
        shapes = [(array.size,), (1, array.size), (array.size, 1)]
        if array.size % 2 == 0:
            shapes.append((2, array.size // 2))
        if array.size % 3 == 0:
            shapes.append((array.size // 3, 3))
        shape = shapes[random.integers(len(shapes))]
        return reshape(weight, shape), array.reshape(shape)
    return weight, array


def apply_concat(weight, array, random):
    """Put two parts of a weight together again, or the whole twice."""
    axis = int(random.integers(array.ndim))
    size = array.shape[axis]
    if size > 1 and random.integers(2):
        middle = int(random.integers(1, size))
        halves = apply_slice(array, axis, 0, middle), apply_slice(array, axis, middle, None)
        parts = [take(weight, axis, 0, middle), take(weight, axis, middle, size)]
        return concat(parts, axis), np.concatenate(halves, axis)
    return concat([weight] * 2, axis), np.concatenate([array] * 2, axis)


def apply_slice(array, axis, start, stop):
    return array[(slice(None),) * axis + (slice(start, stop),)]


@settings(max_examples=400, deadline=None)
@given(compositions())
def test_compositions_equal_numpy(tmp_path_factory, composition):
    shape, dtype, steps, seed = composition
    random = np.random.default_rng(seed)
    array = random_array(shape, dtype, seed)
    folder = tmp_path_factory.mktemp("w")
    weight = stored(folder, array, dtype, offset=int(random.integers(0, 9)))
    if random.integers(3) == 0:
        weight = as_weight(ir.Tensor(array, dtype=dtype, name="w"))
    agree(weight, array)
    for step in steps:
        weight, array = apply_step(step, weight, array, random)
    agree(weight, np.ascontiguousarray(array).reshape(array.shape))
    if array.size:
        box = tuple(sorted(int(v) for v in random.integers(0, n + 1, 2)) for n in array.shape)
        part = weight.read(tuple((a, b) for a, b in box))
        expected = array[tuple(slice(a, b) for a, b in box)]
        assert part.shape == expected.shape
        assert part.flags.c_contiguous
        assert part.tobytes() == expected.tobytes()


@pytest.fixture
def small_work(monkeypatch):
    """Boxes, blocks and gaps so small that little tensors are cut everywhere."""
    monkeypatch.setattr(evaluate, "_WORK_BYTES", 64)
    monkeypatch.setattr(evaluate, "_STRIDED_BYTES", 160)
    monkeypatch.setattr(evaluate, "CHUNK_BYTES", 48)
    monkeypatch.setattr("vlmpass.ir_tools.weights.expressions._BLOCK_BYTES", 64)
    monkeypatch.setattr("vlmpass.ir_tools.weights.arrays._TILE", 8)
    monkeypatch.setattr("vlmpass.ir_tools.weights.casts._BLOCK", 16)
    monkeypatch.setattr("vlmpass.ir_tools.weights.leaves._WORTH_SKIPPING", 8)
    monkeypatch.setattr("vlmpass.ir_tools.weights.leaves._READ_THROUGH_BYTES", 32)


@pytest.mark.usefixtures("small_work")
@pytest.mark.parametrize("seed", range(150))
def test_compositions_in_small_pieces(tmp_path, seed):
    random = np.random.default_rng(seed)
    dtype = DTYPES[seed % len(DTYPES)]
    shape = tuple(int(n) for n in random.integers(1, 13, random.integers(1, 5)))
    array = random_array(shape, dtype, seed)
    weight = stored(tmp_path, array, dtype, offset=seed % 5)
    for _ in range(random.integers(0, 5)):
        step = STEPS[random.integers(len(STEPS))]
        weight, array = apply_step(step, weight, array, random)
    agree(weight, np.ascontiguousarray(array).reshape(array.shape))


@pytest.mark.parametrize("dtype", [d for d in DTYPES if d.bitwidth < 8], ids=str)
@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5, 7, 8, 31])
def test_packing_is_that_of_onnx(dtype, count):
    array = random_array((count,), dtype, count)
    data = pack(array, dtype)
    assert data.tobytes() == ir.Tensor(array, dtype=dtype).tobytes()
    back = unpack(data, count, dtype)
    assert (back.view(np.uint8) == array.view(np.uint8)).all()


def test_slices_stay_ranges_of_the_file(tmp_path):
    array = random_array((10, 6), D.BFLOAT16)
    weight = stored(tmp_path, array, D.BFLOAT16, offset=100)
    part = rows(weight, 3, 7)
    where = part.file_range()
    assert (where.offset, where.length) == (100 + 3 * 12, 4 * 12)
    assert reshape(part, [24]).file_range() == where
    assert take(rows(weight, 3, 4), 1, 2, 5).file_range().offset == 100 + 3 * 12 + 4
    assert columns(weight, 0, 3).file_range() is None
    assert concat([rows(weight, 0, 3), rows(weight, 3, 10)], 0).file_range() == weight.file_range()
    assert concat([rows(weight, 3, 10), rows(weight, 0, 3)], 0).file_range() is None
    assert transpose(rows(weight, 0, 1), [1, 0]).file_range() is not None
    twice = transpose(transpose(weight, [1, 0]), [1, 0])
    assert twice.expression == weight.expression
    wide = cast(weight, D.FLOAT)
    assert wide.file_range() is None
    assert cast(rows(wide, 2, 4), D.BFLOAT16).file_range() == rows(weight, 2, 4).file_range()


def test_packed_slices_are_ranges_only_at_whole_bytes(tmp_path):
    array = random_array((5, 3), D.INT4)
    weight = stored(tmp_path, array, D.INT4)
    assert rows(weight, 2, 4).file_range().offset == 3
    assert rows(weight, 1, 3).file_range() is None
    assert rows(weight, 4, 5).file_range().length == 2
    assert rows(weight, 2, 3).file_range() is None  # the last byte has an element of the next row
    for start in range(5):
        for stop in range(start, 6):
            agree(rows(weight, start, stop), array[start:stop])


def test_casts_that_lose_nothing_vanish(tmp_path):
    array = random_array((4, 4), D.BFLOAT16)
    weight = stored(tmp_path, array, D.BFLOAT16)
    back = cast(cast(weight, D.DOUBLE), D.BFLOAT16)
    assert back.expression == weight.expression
    assert cast(weight, D.BFLOAT16) is weight
    lossy = cast(cast(weight, D.FLOAT16), D.FLOAT)
    with np.errstate(all="ignore"):
        agree(lossy, array.astype(np.float16).astype(np.float32))
    direct = cast(cast(weight, D.FLOAT), D.FLOAT16)
    assert direct.expression == cast(weight, D.FLOAT16).expression


def test_equal_expressions_are_equal(tmp_path):
    array = random_array((4, 4), D.FLOAT)
    first = stored(tmp_path, array, D.FLOAT)
    second = as_weight(copy.copy(first))
    second.name = "tied"
    a, b = (columns(cast(w, D.FLOAT16), 1, 3).expression for w in (first, second))
    assert a == b
    assert hash(a) == hash(b)
    assert a != columns(cast(first, D.FLOAT16), 1, 2).expression


def test_names_and_metadata_stay(tmp_path):
    weight = StoredWeight(
        stored(tmp_path, np.zeros((2, 2), np.float32), D.FLOAT).location,
        0,
        16,
        D.FLOAT,
        shape=ir.Shape([2, 2]),
        name="w",
        base_dir=tmp_path,
        doc_string="doc",
        metadata_props={"a": "b"},
    )
    lazy = scale(transpose(cast(weight, D.FLOAT16), [1, 0]), 2.0)
    assert (lazy.name, lazy.doc_string, lazy.metadata_props) == ("w", "doc", {"a": "b"})
    lazy.metadata_props["a"] = "c"
    assert weight.metadata_props == {"a": "b"}


def test_tally_comes_through_compositions(tmp_path):
    array = np.array([[1e6, 1e-9], [1.0, -7e4], [np.inf, 0.0]], np.float32)
    weight = stored(tmp_path, array, D.FLOAT)
    tally = Tally()
    list(rows(transpose(cast(weight, D.FLOAT16), [1, 0]), 0, 2).chunks(tally))
    assert (tally.overflowed, tally.underflowed) == (2, 1)
    total = Tally(1, 1)
    total.add(tally)
    assert (total.overflowed, total.underflowed) == (3, 2)
    assert not Tally()
    tally = Tally()
    scale(as_weight(ir.tensor(np.array([3e37, 1e-38], np.float32))), np.array([10.0, 1e-30])).read(
        ((0, 2),), tally
    )
    assert (tally.overflowed, tally.underflowed) == (0, 1)


def test_a_scaled_number_that_is_none_is_refused():
    large = as_weight(ir.tensor(np.array([3e38, np.inf], np.float32)))
    assert np.isinf(scale(large, np.array([1.0, 10.0])).numpy()).tolist() == [False, True]
    with pytest.raises(ModelError, match="exceeds float32"):
        scale(large, 10.0).numpy()


def test_scale_rounds_once():
    bf16 = np.array([1.0078125, 3.0], ml_dtypes.bfloat16)
    factor = np.array([1.00390625, 1 / 3], np.float32)
    out = scale(as_weight(ir.Tensor(bf16, name="w")), factor).numpy()
    expected = (bf16.astype(np.float32) * factor).astype(ml_dtypes.bfloat16)
    assert (out == expected).all()


@pytest.mark.parametrize(
    "bad",
    [
        lambda w: take(w, 2, 0, 1),
        lambda w: take(w, 0, 0, 4),
        lambda w: take(w, 0, 2, 1),
        lambda w: transpose(w, [0, 0]),
        lambda w: transpose(w, [0]),
        lambda w: reshape(w, [4]),
        lambda w: reshape(w, [-1, 3]),
        lambda w: concat([], 0),
        lambda w: concat([w, rows(w, 0, 1)], 1),
        lambda w: concat([w, cast(w, D.FLOAT16)], 0),
        lambda w: concat([w], 2),
        lambda w: scale(w, np.ones((2, 3, 3))),
        lambda w: scale(w, np.ones((2, 1))),
        lambda w: w.read(((0, 1),)),
        lambda w: w.read(((0, 1), (0, 4))),
        lambda w: w.read(((2, 1), (0, 3))),
    ],
)
def test_what_does_not_fit_raises(bad):
    with pytest.raises(ValueError, match=r".+"):
        bad(as_weight(ir.tensor(np.zeros((3, 3), np.float32), name="w")))


def test_what_cannot_be_is_refused():
    integers = as_weight(ir.tensor(np.zeros(3, np.int32), name="w"))
    with pytest.raises(ModelError, match="cannot be scaled"):
        scale(integers, 2.0)
    with pytest.raises(ModelError, match="scales, not weights"):
        cast(integers, D.FLOAT8E8M0)
    with pytest.raises(ModelError, match="STRING"):
        as_weight(ir.StringTensor([b"a"], shape=ir.Shape([1]), name="s"))
    with pytest.raises(ModelError, match="undefined"):
        cast(as_weight(ir.tensor(np.array([1e10], np.float32))), D.INT32).numpy()


def test_sizes_are_products():
    weight = as_weight(ir.tensor(np.zeros((3, 5), np.int64)))
    assert weight.size == math.prod(weight.shape.numpy())
