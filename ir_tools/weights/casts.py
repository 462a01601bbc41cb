"""Casts between element types, as ONNX Cast defines them and ml_dtypes rounds them.

Types of up to 16 bits are cast through a table of all their patterns; wider floats by integer
arithmetic or numpy. All of it works on small blocks, which stay in the cache and let other threads
run; ml_dtypes itself makes the tables only.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from vlmpass.ir_tools.errors import ModelError
from vlmpass.ir_tools.weights.arrays import AnyArray, BoolArray, ByteArray
from vlmpass.ir_tools.weights.tally import Tally

__all__ = ["convert", "saturates", "why_not_cast"]

_BLOCK = 1 << 16
_FLOAT8 = (
    ir.DataType.FLOAT8E4M3FN,
    ir.DataType.FLOAT8E4M3FNUZ,
    ir.DataType.FLOAT8E5M2,
    ir.DataType.FLOAT8E5M2FNUZ,
)
_NO_INFINITY = (ir.DataType.FLOAT4E2M1, ir.DataType.FLOAT6E2M3, ir.DataType.FLOAT6E3M2)
_COMPLEX = (ir.DataType.COMPLEX64, ir.DataType.COMPLEX128)
_FLOAT, _DOUBLE = ir.DataType.FLOAT, ir.DataType.DOUBLE
_FLOAT16, _BFLOAT16 = ir.DataType.FLOAT16, ir.DataType.BFLOAT16
_WIDE_FLOATS = (_FLOAT16, _BFLOAT16, _FLOAT, _DOUBLE)
_SMALL = (*_FLOAT8, *_NO_INFINITY)
_OVERFLOWED, _UNDERFLOWED, _UNDEFINED, _SUBNORMAL = 1, 2, 4, 8


def why_not_cast(source: ir.DataType, to: ir.DataType) -> str | None:
    """Return why ONNX Cast does not define this cast of weights, or None if it does."""
    if source == to:
        return None
    for dtype in (source, to):
        if dtype in (ir.DataType.STRING, ir.DataType.UNDEFINED, *_COMPLEX):
            return f"{dtype} weights cannot be cast"
    if to == ir.DataType.FLOAT8E8M0:
        return "FLOAT8E8M0 holds scales, not weights, and has no sign and no zero"
    return None


def saturates(to: ir.DataType, wanted: bool) -> bool:
    """Return the `saturate` of a cast: it makes a difference for four float8 types, else True."""
    return wanted or to not in _FLOAT8


def convert(
    array: AnyArray,
    source: ir.DataType,
    to: ir.DataType,
    *,
    saturate: bool = True,
    tally: Tally | None = None,
) -> AnyArray:
    """Cast unpacked elements.

    DOUBLE goes to types below FLOAT16's width by way of FLOAT, as in ml_dtypes and ONNX Runtime.

    Args:
        array: In row-major order, of the numpy type of `source`.
        source: Its element type.
        to: The element type wanted.
        saturate: For the four float8 types: whether values out of range become the largest finite
            value (else NaN, or infinity in FLOAT8E5M2).
        tally: Counts what is lost, if given.

    Raises:
        ModelError: A value that is out of range of an integer type, or NaN: ONNX leaves those
            undefined.
    """
    if source == to:
        return array
    if to.is_floating_point() and _goes_by_float(source, to):
        return convert(
            convert(array, source, _FLOAT, tally=tally), _FLOAT, to, saturate=saturate, tally=tally
        )
    cast = _Cast(source, to, saturates(to, saturate))
    out = np.empty(array.shape, to.numpy())
    flat, flat_out = array.reshape(-1), out.reshape(-1)
    for start in range(0, flat.size, _BLOCK):
        stop = start + _BLOCK
        _convert_block(flat[start:stop], flat_out[start:stop], cast, tally)
    return out


class _Cast(NamedTuple):
    source: ir.DataType
    to: ir.DataType
    saturate: bool


class _Table(NamedTuple):
    values: AnyArray  # the result for every pattern of the source
    lost: ByteArray | None  # what becomes of it, in _OVERFLOWED, …; None if nothing is lost


def _goes_by_float(source: ir.DataType, to: ir.DataType) -> bool:
    return to not in (_FLOAT16, _FLOAT, _DOUBLE) and (
        source == _DOUBLE or (source.is_integer() and source.bitwidth > 8)
    )


def _convert_block(block: AnyArray, out: AnyArray, cast: _Cast, tally: Tally | None) -> None:
    source, to = cast.source, cast.to
    if source == _BFLOAT16 and to == _FLOAT:
        wide = out.view(np.uint32)
        np.copyto(wide, block.view(np.uint16))
        np.left_shift(wide, 16, out=wide)
    elif source.bitwidth <= 8 or source in (_FLOAT16, _BFLOAT16):
        _look_up(block.view(f"u{block.itemsize}"), out, cast, tally)
    elif source == _FLOAT and to.is_floating_point() and to.bitwidth <= 8:
        _look_up(_to_odd(block), out, cast._replace(source=_BFLOAT16), tally)
    elif source == _FLOAT and to == _BFLOAT16:
        _float_to_bfloat16(block.view(np.uint32), out.view(np.uint16))
        _count_lost(block, out.view(np.uint16), to, tally)
    elif to.is_floating_point():
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            np.copyto(out, block, casting="unsafe")
        if (source.is_floating_point() or to == _FLOAT16) and to in _INFINITY:
            _count_lost(block, out.view(f"u{out.itemsize}"), to, tally)
    else:
        out[...], undefined = _to_whole(block, to)
        if undefined.any():
            raise _undefined(block[undefined][0], cast)


_INFINITY = {_FLOAT16: 0x7C00, _BFLOAT16: 0x7F80, _FLOAT: 0x7F800000}
_NORMAL = 0x0400
"""The least pattern of a float16 with all its digits; the other types reach as far as float32."""


def _look_up(patterns: AnyArray, out: AnyArray, cast: _Cast, tally: Tally | None) -> None:
    table = _table(cast)
    np.take(table.values, patterns, out=out, mode="clip")
    if table.lost is None:
        return
    lost = np.take(table.lost, patterns, mode="clip")
    if not lost.any():
        return
    if (lost & _UNDEFINED).any():
        pattern = patterns[(lost & _UNDEFINED) != 0][:1]
        raise _undefined(pattern.view(cast.source.numpy())[0], cast)
    if tally is not None:
        tally.overflowed += int(np.count_nonzero(lost & _OVERFLOWED))
        tally.underflowed += int(np.count_nonzero(lost & _UNDERFLOWED))
        tally.subnormal += int(np.count_nonzero(lost & _SUBNORMAL))


@lru_cache(maxsize=64)
def _table(cast: _Cast) -> _Table:
    source, to = cast.source, cast.to
    bits = 8 if source.bitwidth < 8 else source.bitwidth
    patterns = np.arange(1 << bits, dtype=np.uint32).astype(f"u{bits // 8}")
    if source == ir.DataType.BOOL:
        native = patterns != 0
    else:
        wide = np.int32 if source.is_integer() else np.float32
        native = patterns.view(source.numpy()).astype(wide)
    if not to.is_floating_point():
        values, undefined = _to_whole(native, to)
        lost = undefined.astype(np.uint8) * np.uint8(_UNDEFINED)
    else:
        values, lost = _to_float(native.astype(np.float32), cast)
    return _Table(values, lost if lost.any() else None)


def _to_float(native: AnyArray, cast: _Cast) -> tuple[AnyArray, ByteArray]:
    """Cast float32 to any float type by ml_dtypes and numpy, and say what was lost."""
    to = cast.to
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        values = native.astype(to.numpy())
        back = values.astype(np.float32)
        if to in _NO_INFINITY:
            largest = np.float32(to.max)
            step = largest - np.nextafter(to.max, to.numpy().type(0)).astype(np.float32)
            over = np.isfinite(native) & (np.abs(native) >= largest + step / 2)
        else:
            over = np.isfinite(native) & ~np.isfinite(back)
        if cast.saturate and to in _FLOAT8:
            values = np.clip(native, np.float32(to.min), np.float32(to.max)).astype(to.numpy())
    lost = np.where(over, np.uint8(_OVERFLOWED), np.uint8(0))
    lost |= np.where((native != 0) & (back == 0), np.uint8(_UNDERFLOWED), np.uint8(0))
    if to == _FLOAT16:
        least = np.float32(np.finfo(np.float16).smallest_normal)
        small = (back != 0) & (np.abs(back) < least) & (back != native)
        lost |= np.where(small, np.uint8(_SUBNORMAL), np.uint8(0))
    if to in _NO_INFINITY:
        lost = np.where(np.isnan(native), np.uint8(_UNDEFINED), lost)
    return values, lost


def _to_whole(native: AnyArray, to: ir.DataType) -> tuple[AnyArray, BoolArray]:
    """Cast numpy's own types to integers or bool; also return where ONNX says nothing."""
    if to == ir.DataType.BOOL:
        return native != 0, np.zeros(native.shape, np.bool_)
    undefined = np.zeros(native.shape, np.bool_)
    if native.dtype.kind == "f":
        with np.errstate(invalid="ignore"):  # signalling NaN
            whole = np.trunc(native.astype(np.float64))
        # both bounds are exact in float64: the upper one is a power of two
        undefined = ~((whole >= float(to.min)) & (whole < float(int(to.max) + 1)))
        native = np.where(undefined, 0, whole)
    if to.bitwidth >= 8:
        return native.astype(to.numpy()), undefined
    kept = native.astype(np.int64).astype(np.uint8) & np.uint8((1 << to.bitwidth) - 1)
    return kept.view(to.numpy()), undefined


def _undefined(value: object, cast: _Cast) -> ModelError:
    return ModelError(
        f"{value} cannot be cast from {cast.source} to {cast.to}: ONNX leaves it undefined"
    )


def _to_odd(block: AnyArray) -> AnyArray:
    """Drop the lower half of float32, leaving a mark that they were not zero.

    The result, seen as bfloat16, has enough bits that rounding it to at most 5 significant ones
    gives what rounding the float32 itself would have given.
    """
    bits = block.view(np.uint32)
    upper = (bits >> 16).astype(np.uint16)
    upper |= (bits & np.uint32(0xFFFF)) != 0
    return upper


def _float_to_bfloat16(bits: AnyArray, out: AnyArray) -> None:
    """Round to nearest even by adding just below half of what is cut off; NaN stays NaN."""
    rounded = bits >> 16
    rounded &= 1
    rounded += 0x7FFF
    rounded += bits
    rounded >>= 16
    np.copyto(out, rounded, casting="unsafe")
    nan = (bits & np.uint32(0x7FFFFFFF)) > 0x7F800000
    if nan.any():
        out[nan] = ((bits[nan] >> 16) | 0x40).astype(np.uint16)


def _count_lost(block: AnyArray, out: AnyArray, to: ir.DataType, tally: Tally | None) -> None:
    """Count by the difference in infinities and zeros between values and rounded patterns."""
    if tally is None:
        return
    magnitude = out & out.dtype.type((1 << (8 * out.itemsize - 1)) - 1)
    if magnitude.max(initial=0) >= _INFINITY[to]:
        infinite = np.count_nonzero(magnitude == _INFINITY[to])
        tally.overflowed += int(infinite - np.count_nonzero(np.isinf(block)))
    zeros = magnitude.size - np.count_nonzero(magnitude)
    if zeros:
        tally.underflowed += int(zeros - (block.size - np.count_nonzero(block)))
    if to == _FLOAT16:
        tally.subnormal += int(np.count_nonzero(magnitude < _NORMAL) - zeros)
