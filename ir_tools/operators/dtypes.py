"""Element types: what each can hold, by construction of the formats."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import ml_dtypes
import onnx_ir as ir

__all__ = ["end_of", "holds_all", "is_normal", "wider"]

_D = ir.DataType


class _Format(NamedTuple):
    """A binary format, as its specification gives it.

    Attributes:
        bits: Significant bits, the leading one included.
        least: The exponent of the least positive value.
        most: The exponent of the greatest finite value.
        infinite: Whether it has infinities.
        nan: Whether it has a NaN.
        signed_zero: Whether it has a negative zero.
    """

    bits: int
    least: int
    most: int
    infinite: bool = True
    nan: bool = True
    signed_zero: bool = True


# IEEE 754; bfloat16; OCP 8-bit and MX formats; the FNUZ forms of Graphcore and AMD.
_FORMATS = {
    _D.DOUBLE: _Format(53, -1074, 1023),
    _D.FLOAT: _Format(24, -149, 127),
    _D.FLOAT16: _Format(11, -24, 15),
    _D.BFLOAT16: _Format(8, -133, 127),
    _D.FLOAT8E4M3FN: _Format(4, -9, 8, infinite=False),
    _D.FLOAT8E4M3FNUZ: _Format(4, -10, 7, infinite=False, signed_zero=False),
    _D.FLOAT8E5M2: _Format(3, -16, 15),
    _D.FLOAT8E5M2FNUZ: _Format(3, -17, 15, infinite=False, signed_zero=False),
    _D.FLOAT6E2M3: _Format(4, -3, 2, infinite=False, nan=False),
    _D.FLOAT6E3M2: _Format(3, -4, 4, infinite=False, nan=False),
    _D.FLOAT4E2M1: _Format(2, -1, 2, infinite=False, nan=False),
}
_SCALES = _Format(1, -127, 127, infinite=False, signed_zero=False)
"""FLOAT8E8M0: powers of two without a sign and without a zero, and a NaN."""


@cache
def holds_all(wide: ir.DataType, narrow: ir.DataType | None) -> bool:
    """Whether every value of a type, infinities, NaN and negative zero included, is another's too.

    Args:
        wide: The type that is to hold them.
        narrow: The type whose values they are; None, if nobody knows it, is held by none.
    """
    if narrow is None:
        return False
    if wide == narrow:
        return True
    if narrow == _D.COMPLEX64:
        return wide == _D.COMPLEX128
    if narrow == _D.BOOL or narrow.is_integer():
        low, high = (0, 1) if narrow == _D.BOOL else (int(narrow.min), int(narrow.max))
        return _holds_range(wide, low, high)
    one = _SCALES if narrow == _D.FLOAT8E8M0 else _FORMATS.get(narrow)
    other = _FORMATS.get(wide)
    return one is not None and other is not None and _holds_format(other, one)


def _holds_range(wide: ir.DataType, low: int, high: int) -> bool:
    if wide.is_integer():
        return int(wide.min) <= low and high <= int(wide.max)
    form = _FORMATS.get(wide)
    if form is None:
        return False
    greatest: float = (2**form.bits - 1) * 2.0 ** (form.most - form.bits + 1)
    return bool(max(-low, high) <= min(2**form.bits, greatest))


def _holds_format(wide: _Format, narrow: _Format) -> bool:
    return (
        wide.bits >= narrow.bits
        and wide.least <= narrow.least
        and wide.most >= narrow.most
        and wide.infinite >= narrow.infinite
        and wide.nan >= narrow.nan
        and wide.signed_zero >= narrow.signed_zero
    )


def end_of(dtype: ir.DataType) -> float:
    """Return the largest finite number of a floating-point type."""
    return float(ml_dtypes.finfo(dtype.numpy()).max)  # type: ignore[no-untyped-call]


def is_normal(number: float, dtype: ir.DataType) -> bool:
    """Whether a floating-point type rounds a number to within half a unit in the last place.

    Zero it does; not what is infinite there, no number, or below its smallest normal one.
    """
    info = ml_dtypes.finfo(dtype.numpy())  # type: ignore[no-untyped-call]
    return number == 0 or float(info.smallest_normal) <= abs(number) <= float(info.max)


@cache
def wider(dtype: ir.DataType) -> tuple[ir.DataType, ...]:
    """Return the common types that hold all values of a type, those of its own sort first."""
    whole = dtype == _D.BOOL or dtype.is_integer()
    signed = dtype != _D.BOOL and dtype.is_signed()
    integers = (_D.INT8 if signed else _D.UINT8, _D.INT32, _D.INT64) if whole else (_D.FLOAT16,)
    ladder = (*integers, _D.FLOAT, _D.DOUBLE)
    return tuple(each for each in ladder if each != dtype and holds_all(each, dtype))
