"""Rounding to element types that the target lacks: bit for bit what a Cast there would give."""

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import numpy_helper

from vlmpass.passes.convert_opset import ConvertOpset

from .opset_cases import attempts

D = ir.DataType
RANDOM = np.random.default_rng(0)
HALVES = np.arange(1 << 16).astype(np.uint16).view(np.float16)
FLOATS = (D.FLOAT8E4M3FN, D.FLOAT8E4M3FNUZ, D.FLOAT8E5M2, D.FLOAT8E5M2FNUZ, D.FLOAT4E2M1)
SATURATING = [(kind, saturate) for kind in FLOATS for saturate in ((1, 0), (1,))[kind == FLOATS[4]]]


def singles(kind: ir.DataType) -> np.ndarray:
    """Return float32 numbers of every size, and all values of a type, their middles and edges."""
    patterns = np.arange(1 << kind.bitwidth).astype("u2" if kind.bitwidth == 16 else "u1")
    values = patterns.view(kind.numpy()).astype(np.float32)
    values = np.unique(values[np.isfinite(values)])
    middles = (values[1:].astype(np.float64) + values[:-1]) / 2
    near = np.concatenate([values, middles]).astype(np.float32)
    edges = [near, np.nextafter(near, np.float32(np.inf)), np.nextafter(near, np.float32(-np.inf))]
    bits = RANDOM.integers(0, 1 << 32, 20000, dtype=np.uint32).view(np.float32)
    powers = np.ldexp(np.float32(1), np.arange(-149, 128)).astype(np.float32)
    powers = np.concatenate([powers, np.nextafter(powers, 0), np.nextafter(powers, np.inf)])
    ends = np.array([0.0, -0.0, np.inf, -np.inf, np.nan], np.float32)
    return np.concatenate([*edges, bits, powers, -powers, ends]).astype(np.float32)


def cast(x: np.ndarray, kind: ir.DataType, *, saturate: int = 1) -> np.ndarray:
    """Round as ml_dtypes does, in a type that has all values."""
    dtype, single = kind.numpy(), x.astype(np.float32)
    with np.errstate(all="ignore"):
        if saturate and kind in FLOATS:
            largest = np.float32(ml_dtypes.finfo(dtype).max)
            single = np.clip(single, -largest, largest)
        return single.astype(dtype).astype(np.float32)


def converted(kind: ir.DataType, source: str, to: int, given: str = "") -> onnx.ModelProto:
    """Return a model that casts there and back again, at an opset that has no such type."""
    model = ir.from_onnx_text(
        f"""<ir_version: 13, opset_import: ["" : 25]>
        agraph ({source}[n] x) => (float[n] y) {{
            r = Cast <to={kind.value}{given}> (x)
            y = Cast <to=1> (r)
        }}"""
    )
    ConvertOpset(to=to).run(model)
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    return proto


def assert_rounds(proto: onnx.ModelProto, x: np.ndarray, expected: np.ndarray) -> None:
    results = [each for each in attempts(proto, [x]) if not isinstance(each, Exception)]
    assert results
    for (result,) in results:
        np.testing.assert_array_equal(result, expected)
        if proto.opset_import[0].version < 11:
            continue  # Round is spelled by Floor there, which makes 0 of what is just below it
        regular = ~np.isnan(expected)
        np.testing.assert_array_equal(np.signbit(result)[regular], np.signbit(expected)[regular])


@pytest.mark.parametrize("to", [18, 13, 11, 9])
@pytest.mark.parametrize(("kind", "saturate"), SATURATING)
def test_every_half_and_many_singles_are_rounded_as_cast_rounds_them(kind, saturate, to):
    for source, x in (("float16", HALVES), ("float", singles(kind))):
        expected = cast(x, kind, saturate=saturate)
        if kind == D.FLOAT4E2M1:
            expected = np.where(np.isnan(x), np.float32(0), expected)
        assert_rounds(converted(kind, source, to, f", saturate={saturate}"), x, expected)


@pytest.mark.parametrize("to", [12, 11, 9])
@pytest.mark.parametrize("source", ["float16", "float"])
def test_singles_are_rounded_to_bfloat16(source, to):
    x = HALVES if source == "float16" else singles(D.BFLOAT16)
    assert_rounds(converted(D.BFLOAT16, source, to), x, cast(x, D.BFLOAT16))


def power(x: np.ndarray, mode: str, saturate: bool) -> np.ndarray:
    """Round to a power of two as the tables of Cast have it."""
    least, largest = np.ldexp(1.0, -127), np.ldexp(1.0, 127)
    with np.errstate(all="ignore"):
        wide = x.astype(np.float64)
        digits, exponents = np.frexp(np.clip(wide, least, 2 * largest))
        up = {"up": digits > 0.5, "down": digits > 1, "nearest": digits >= 0.75}[mode]
        found = np.ldexp(1.0, exponents - 1 + up)
    if saturate:
        return np.where(np.isnan(wide), np.nan, np.minimum(found, largest)).astype(np.float32)
    lost = np.isnan(wide) | (wide < least) | (found > largest) | np.isinf(wide)
    return np.where(lost, np.nan, found).astype(np.float32)


@pytest.mark.parametrize("to", [23, 18, 11, 9])
@pytest.mark.parametrize("saturate", [1, 0])
@pytest.mark.parametrize("mode", ["up", "down", "nearest"])
def test_singles_are_rounded_to_powers_of_two(mode, saturate, to):
    x = np.abs(singles(D.FLOAT8E4M3FN))  # what is not negative is all that Cast defines
    given = f', saturate={saturate}, round_mode="{mode}"'
    proto = converted(D.FLOAT8E8M0, "float", to, given)
    assert_rounds(proto, x, power(x, mode, bool(saturate)))


@pytest.mark.parametrize("mode", ["up", "down", "nearest"])
def test_powers_of_two_are_those_of_onnx(mode):
    x = np.abs(singles(D.FLOAT8E4M3FN))
    x = x[(x >= np.finfo(np.float32).tiny) & np.isfinite(x)]
    expected = numpy_helper.to_float8e8m0(x, True, mode).astype(np.float32)
    np.testing.assert_array_equal(power(x, mode, saturate=True), expected)


NARROW = [(D.INT4, "int64"), (D.UINT4, "int8"), (D.INT2, "uint16"), (D.UINT2, "int32")]


@pytest.mark.parametrize("to", [18, 13, 9])
@pytest.mark.parametrize(("kind", "source"), NARROW)
def test_integers_keep_their_lowest_bits(kind, source, to):
    info = np.iinfo(source)
    ends = np.array([info.min, info.max, 0, 1, 7, 8, 15, 16], source)
    some = RANDOM.integers(info.min, info.max, 500, dtype=source, endpoint=True)
    x = np.concatenate([ends, some, -some, np.arange(100).astype(source)])
    assert_rounds(converted(kind, source, to), x, x.astype(kind.numpy()).astype(np.float32))


@pytest.mark.parametrize("kind", [D.INT4, D.UINT4, D.INT2, D.UINT2])
@pytest.mark.parametrize("source", ["float16", "float", "bool"])
def test_floats_are_cut_off_and_keep_their_lowest_bits(kind, source):
    x = np.arange(-40, 41).astype(np.float32) / 2
    x = np.array([True, False]) if source == "bool" else x.astype(D[source.upper()].numpy())
    expected = x.astype(np.int32).astype(kind.numpy()).astype(np.float32)
    assert_rounds(converted(kind, source, 18), x, expected)
