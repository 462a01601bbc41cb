"""Casts against ml_dtypes over all patterns, and against the tables of ONNX Cast."""

import itertools

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx.reference.ops.op_cast import cast_to

from vlmpass.ir_tools.errors import ModelError
from vlmpass.ir_tools.operators.dtypes import holds_all
from vlmpass.ir_tools.weights import Tally
from vlmpass.ir_tools.weights.casts import convert, why_not_cast

pytestmark = pytest.mark.filterwarnings("ignore:invalid value encountered in cast")

D = ir.DataType
FLOAT8 = [D.FLOAT8E4M3FN, D.FLOAT8E4M3FNUZ, D.FLOAT8E5M2, D.FLOAT8E5M2FNUZ]
TINY = [D.FLOAT4E2M1, D.FLOAT6E2M3, D.FLOAT6E3M2]
FLOATS = [D.FLOAT16, D.BFLOAT16, D.FLOAT, D.DOUBLE, *FLOAT8, *TINY]
INTS = [
    *(D.INT2, D.UINT2, D.INT4, D.UINT4, D.INT8, D.UINT8),
    *(D.INT16, D.UINT16, D.INT32, D.UINT32, D.INT64, D.UINT64),
]


def patterns(dtype):
    """All patterns of a type of up to 16 bits, else random ones with the awkward ones among them"""
    if dtype.bitwidth <= 16:
        unsigned = np.uint16 if dtype.bitwidth == 16 else np.uint8
        return np.arange(1 << dtype.bitwidth, dtype=np.uint32).astype(unsigned).view(dtype.numpy())
    random = np.random.default_rng(7)
    unsigned = np.dtype(f"u{dtype.bitwidth // 8}")
    bits = random.integers(0, 1 << dtype.bitwidth, 200_000, dtype=unsigned)
    narrow = np.concatenate(
        [patterns(small).astype(np.float32) for small in (D.FLOAT16, D.BFLOAT16, *FLOAT8)]
    )
    with np.errstate(invalid="ignore"):
        near = narrow.astype(dtype.numpy()).view(unsigned)
    ties = (near[1:] // 2 + near[:-1] // 2).astype(unsigned)
    around = [near + np.asarray(d, unsigned) for d in (0, 1, 2)] + [near - np.asarray(1, unsigned)]
    small = random.standard_normal(100_000).astype(dtype.numpy()).view(unsigned)
    return np.concatenate([bits, ties, ties + 1, small, *around]).view(dtype.numpy())


def without_nan(values):
    with np.errstate(invalid="ignore"):
        return values[~np.isnan(values.astype(np.float64))]


def same_bits(actual, expected):
    """Equal bit for bit, except for what a NaN carries."""
    assert actual.dtype == expected.dtype
    unsigned = f"u{actual.itemsize}"
    with np.errstate(invalid="ignore"):
        nan = np.isnan(expected.astype(np.float64)) & np.isnan(actual.astype(np.float64))
    differ = (actual.view(unsigned) != expected.view(unsigned)) & ~nan
    where = np.flatnonzero(differ)[:5]
    assert not differ.any(), (actual[where], expected[where])


@pytest.mark.parametrize(("source", "to"), list(itertools.permutations(FLOATS, 2)), ids=str)
def test_floats_match_ml_dtypes(source, to):
    values = patterns(source)
    if to in TINY:  # they have no NaN: ONNX says nothing about it
        values = without_nan(values)
    with np.errstate(all="ignore"):
        expected = values.astype(to.numpy())
    same_bits(convert(values, source, to, saturate=False), expected)


@pytest.mark.parametrize("to", FLOAT8, ids=str)
@pytest.mark.parametrize("source", [D.FLOAT, D.FLOAT16, D.BFLOAT16, D.DOUBLE], ids=str)
def test_float8_saturates_as_the_reference_does(source, to):
    values = patterns(source)
    with np.errstate(all="ignore"):
        expected = cast_to(values.astype(np.float32), int(to), saturate=True)
    same_bits(convert(values, source, to, saturate=True), expected)


@pytest.mark.parametrize("to", FLOAT8, ids=str)
def test_table_of_onnx_cast(to):
    largest, uz = float(to.max), "UZ" in to.name
    special = np.array([np.inf, -np.inf, 1e30, -1e30, np.nan, 0.0, -0.0], np.float32)
    on = convert(special, D.FLOAT, to).astype(np.float32)
    np.testing.assert_array_equal(
        on, [largest, -largest, largest, -largest, np.nan, 0.0, 0.0 if uz else -0.0]
    )
    assert np.signbit(on[-1]) == (not uz)
    off = convert(special, D.FLOAT, to, saturate=False).astype(np.float32)
    beyond = np.inf if to == D.FLOAT8E5M2 else np.nan
    np.testing.assert_array_equal(off[:5], [beyond, -beyond, beyond, -beyond, np.nan])


def test_rounding_up_to_the_largest_value_is_no_overflow():
    tally = Tally()
    values = np.array([448.0, 464.0, 464.1, -500.0, 65504.0], np.float32)
    out = convert(values, D.FLOAT, D.FLOAT8E4M3FN, tally=tally)
    assert out.astype(np.float32).tolist() == [448.0, 448.0, 448.0, -448.0, 448.0]
    assert tally.overflowed == 3
    values = np.array([65504, 65519.9, 65520, -1e30, np.inf, np.nan], np.float32)
    tally = Tally()
    out = convert(values, D.FLOAT, D.FLOAT16, tally=tally)
    assert out[:4].tolist() == [65504.0, 65504.0, np.inf, -np.inf]
    assert (tally.overflowed, tally.underflowed) == (2, 0)


@pytest.mark.parametrize("to", [d for d in FLOATS if d != D.DOUBLE], ids=str)
@pytest.mark.parametrize("source", [D.DOUBLE, D.FLOAT, D.FLOAT16, D.BFLOAT16], ids=str)
def test_tally_counts_what_is_lost(source, to):
    values = without_nan(patterns(source))
    tally = Tally()
    out = convert(values, source, to, saturate=False, tally=tally).astype(np.float64)
    wide = values.astype(np.float64)
    finite = np.isfinite(wide)
    if to in TINY:
        largest = float(to.max)
        step = largest - float(np.sort(patterns(to).astype(np.float64))[-2])
        with np.errstate(all="ignore"):
            over = finite & (np.abs(values.astype(np.float32)) >= largest + step / 2)
    else:
        over = finite & ~np.isfinite(out)
    assert tally.underflowed == np.count_nonzero((wide != 0) & (out == 0))
    assert tally.overflowed == np.count_nonzero(over)


def test_e8m0_is_read_and_never_written():
    values = patterns(D.FLOAT8E8M0)
    same_bits(convert(values, D.FLOAT8E8M0, D.FLOAT), values.astype(np.float32))
    assert "scales" in why_not_cast(D.FLOAT, D.FLOAT8E8M0)


@pytest.mark.parametrize(("source", "to"), list(itertools.permutations(INTS, 2)), ids=str)
def test_integers_keep_their_low_bits(source, to):
    width = source.bitwidth
    bits = patterns(source) if width <= 16 else None
    if bits is None:
        info = np.iinfo(source.numpy())
        bits = np.array([0, 1, 127, 128, 200, 255, 2**31 - 1, info.min, info.max, -1 & info.max])
        bits = bits.astype(source.numpy())
    whole = bits.astype(np.int16 if width < 16 else bits.dtype).astype(object)
    modulus = 1 << to.bitwidth
    expected = [int(v) % modulus for v in whole]
    if to.is_signed():
        expected = [v - modulus if v >= modulus // 2 else v for v in expected]
    out = convert(bits, source, to)
    assert out.dtype == to.numpy()
    assert [int(v) for v in out] == expected
    if to.bitwidth < 8:
        assert (out.view(np.uint8) >> to.bitwidth == 0).all()


@pytest.mark.parametrize("to", [D.INT4, D.UINT4, D.INT8, D.UINT8, D.INT32, D.INT64], ids=str)
@pytest.mark.parametrize("source", [D.DOUBLE, D.FLOAT, D.BFLOAT16, D.FLOAT8E4M3FN], ids=str)
def test_floats_to_integers(source, to):
    inside = np.array([0.5, 1.75, 3.0, 7.0, -0.9 if not to.is_signed() else -2.5, -0.0])
    inside = inside.astype(source.numpy())
    expected = np.trunc(inside.astype(np.float64)).astype(int).tolist()
    assert [int(v) for v in convert(inside, source, to)] == expected
    for bad in (np.nan, float(int(to.max)) + 1, float(int(to.min)) - 129):
        value = np.array([1.0, bad]).astype(source.numpy())
        wide = float(value[1].astype(np.float64))
        if np.isnan(wide) or not float(to.min) <= np.trunc(wide) <= float(to.max):
            with pytest.raises(ModelError, match="undefined"):
                convert(value, source, to)


@pytest.mark.parametrize("dtype", [*FLOATS, *INTS], ids=str)
def test_bool(dtype):
    zero_one = convert(np.array([False, True]), D.BOOL, dtype)
    assert [float(v) for v in zero_one.astype(np.float64)] == [0.0, 1.0]
    values = patterns(dtype) if dtype.bitwidth <= 16 else np.array([0, 3]).astype(dtype.numpy())
    with np.errstate(invalid="ignore"):
        expected = values.astype(np.float64) != 0
    assert (convert(values, dtype, D.BOOL) == expected).all()


@pytest.mark.parametrize("to", [D.FLOAT16, D.BFLOAT16, D.FLOAT, D.DOUBLE, *FLOAT8], ids=str)
@pytest.mark.parametrize("source", INTS, ids=str)
def test_integers_to_floats(source, to):
    values = patterns(source) if source.bitwidth <= 16 else None
    if values is None:
        info = np.iinfo(source.numpy())
        values = np.array([0, 1, 255, 2049, 65519, 65520, info.max // 3, info.max, info.min])
        values = values.astype(source.numpy())
    with np.errstate(all="ignore"):
        expected = cast_to(values.astype(np.float32), int(to), saturate=True)
        if to == D.DOUBLE or (to == D.FLOAT and source.bitwidth >= 16):
            expected = values.astype(to.numpy())
    same_bits(convert(values, source, to), expected)


def test_every_cast_of_the_operator_is_decided():
    schema = onnx.defs.get_schema("Cast", 25, "")
    types = {t for c in schema.type_constraints for t in c.allowed_type_strs}
    known = {d for d in D if d not in (D.UNDEFINED, D.STRING, D.COMPLEX64, D.COMPLEX128)}
    assert len(types) - 1 <= len(known)  # without string
    for source, to in itertools.product(known, known):
        why = why_not_cast(source, to)
        assert (why is None) == (source == to or to != D.FLOAT8E8M0)
        if why is None and source != D.FLOAT8E8M0:
            convert(np.array([0, 1], np.int8).astype(source.numpy()), source, to)


@pytest.mark.parametrize("to", [D.FLOAT, D.INT32, D.BOOL])
def test_complex_and_strings_are_refused(to):
    assert why_not_cast(D.COMPLEX64, to)
    assert why_not_cast(D.STRING, to)
    assert why_not_cast(D.COMPLEX64, D.COMPLEX64) is None


def test_holds_all_means_every_value():
    for narrow in (*FLOATS, D.FLOAT8E8M0, *INTS, D.BOOL):
        values = patterns(narrow) if narrow.bitwidth <= 16 and narrow != D.BOOL else None
        if narrow == D.BOOL:
            values = np.array([False, True])
        for wide in (*FLOATS, *INTS, D.BOOL):
            if wide == narrow or not holds_all(wide, narrow):
                continue
            if values is None:
                assert wide.bitwidth >= narrow.bitwidth
                continue
            there = convert(values, narrow, wide, saturate=False)
            back = there.astype(np.float64)
            np.testing.assert_array_equal(back, values.astype(np.float64))


def test_blocks_do_not_show():
    values = np.random.default_rng(0).standard_normal((1 << 16) * 2 + 5).astype(np.float32)
    for to in (D.BFLOAT16, D.FLOAT16, D.FLOAT8E4M3FN):
        same_bits(convert(values, D.FLOAT, to), values.astype(to.numpy()))
    assert ml_dtypes.finfo(ml_dtypes.bfloat16).bits == 16
