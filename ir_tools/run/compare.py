"""Error statistics of one output against another, and when the two count as equal.

Floating-point outputs are equal when no element differs by more than the tolerance times its own
size plus the output's typical size (the median magnitude of what is not zero, so that neither
zeros nor mask constants like -1e4 set the scale). Integers, booleans and strings must be equal.

Rounding errors of float16 add up like noise, so that the largest of many is several times their
root mean square, the more the more elements there are, and says little; a fault moves the norm.
There the norm of the error is held to half the tolerance, and a single element to four times it.
docs/verifying.md has what was measured.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import ml_dtypes
import numpy as np

from vlmpass.ir_tools.run.error_sums import constant_flag, sums_of
from vlmpass.ir_tools.worker.transport import Array, Feed

__all__ = [
    "TOLERANCES",
    "OutputDifference",
    "compare",
    "compare_arrays",
    "limit_text",
    "tolerance_for",
    "worse",
]

TOLERANCES: Mapping[str, float] = {
    "float64": 1e-7,
    "float32": 1e-4,
    "float16": 1e-2,
    "bfloat16": 8e-2,
    "float8": 3e-1,
}
"""Largest relative error that counts as equal, by the narrowest type computed in.

About the rounding of the type times the square root of a deep model's number of steps; PyTorch's
own half precision comes to 7e-3 and 5e-2 on small decoders.
"""

_OF_NORM = 0.5
_OF_ELEMENT = 4.0
_FEW = 3.0  # standard errors by which the norm of few errors may be above that of many
_PACKED = frozenset({"int2", "uint2", "int4", "uint4"})


@dataclass(frozen=True)
class OutputDifference:
    """How one output compares.

    Attributes:
        name: The output.
        ok: Whether it counts as equal.
        reason: Why not; empty if it does.
        expected: Element type and shape of the expected array, such as ``float32[2,6,2048]``.
        actual: The same of the actual one.
        max_abs: Largest absolute difference of elements that are finite in both.
        max_rel: Largest difference relative to the element's size plus the typical size.
        mean_abs, mean_rel: The means of these differences.
        quantiles: The relative differences that 50, 90, 99 and 99.9 % of the elements do not
            exceed; of a million elements at most. Empty where nothing differs.
        ulps: Largest difference in steps of the narrower of the two types; None for types below 16
            bits, and for those that are exact.
        snr: The power of the expected elements over that of the error, in decibels; None where
            there is no error, or nothing but zeros is expected.
        cosine: Cosine of the angle between the two, 1.0 where both are zero.
        norm: The error's norm relative to that of the elements' and typical sizes, over the
            elements that differ.
        tolerance: What max_rel was held against; 0.0 for exact types.
        nan: How many elements are NaN, expected and actual.
        inf: How many are infinite, expected and actual.
        denormal: How many are too small to be normal in their type, such as 2.6e-42.
        all_zero: Whether all elements are zero, expected and actual.
        constant: Whether all elements, of more than one, are the same other number.
    """

    name: str
    ok: bool
    reason: str
    expected: str
    actual: str
    max_abs: float = 0.0
    max_rel: float = 0.0
    mean_abs: float = 0.0
    mean_rel: float = 0.0
    quantiles: tuple[float, ...] = ()
    ulps: int | None = None
    snr: float | None = None
    cosine: float = 1.0
    norm: float = 0.0
    tolerance: float = 0.0
    nan: tuple[int, int] = (0, 0)
    inf: tuple[int, int] = (0, 0)
    denormal: tuple[int, int] = (0, 0)
    all_zero: tuple[bool, bool] = (False, False)
    constant: tuple[bool, bool] = (False, False)


def limit_text(limit: float) -> str:
    """Return a limit in the digits that it has: ``1e-04``, ``1.6e-01``."""
    return f"{limit:.1e}".replace(".0e", "e")


def tolerance_for(*dtypes: str) -> float:
    """Return the tolerance of the narrowest of some element types; 0.0 if none is floating."""
    found = [bound for dtype in dtypes for key, bound in TOLERANCES.items() if _matches(dtype, key)]
    return max(found, default=0.0)


def _matches(dtype: str, key: str) -> bool:
    return dtype.startswith("float8") if key == "float8" else dtype == key


def compare(
    expected: Feed, actual: Feed, *, tolerance: float | None = None, at_least: float = 0.0
) -> list[OutputDifference]:
    """Compare two sets of outputs by name.

    Args:
        expected: Outputs of the reference; its order is the result's.
        actual: Outputs of what is judged; an output that only one of them has is a difference.
        tolerance: For floating-point outputs; by default that of the narrower of the two dtypes.
        at_least: The default is raised to this, for what was computed in a narrower type.
    """
    differences: list[OutputDifference] = []
    for name, value in expected.items():
        if name not in actual:
            differences.append(_odd(name, "output is missing", _describe(value), "-"))
        else:
            differences += _compare_values(name, value, actual[name], tolerance, at_least)
    extra = [name for name in actual if name not in expected]
    differences += [_odd(name, "output is new", "-", _describe(actual[name])) for name in extra]
    return differences


def _odd(name: str, reason: str, expected: str, actual: str) -> OutputDifference:
    return OutputDifference(name, False, reason, expected, actual, cosine=0.0)


def _describe(value: Array | list[Array] | None) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, list):
        return f"sequence of {len(value)}"
    kind = "string" if value.dtype == object else value.dtype.name
    return f"{kind}[{','.join(str(dim) for dim in value.shape)}]"


def _compare_values(
    name: str,
    expected: Array | list[Array] | None,
    actual: Array | list[Array] | None,
    tolerance: float | None,
    at_least: float,
) -> list[OutputDifference]:
    if isinstance(expected, list) and isinstance(actual, list) and len(expected) == len(actual):
        return [
            compare_arrays(f"{name}[{index}]", *pair, tolerance=tolerance, at_least=at_least)
            for index, pair in enumerate(zip(expected, actual, strict=True))
        ]
    if isinstance(expected, np.ndarray) and isinstance(actual, np.ndarray):
        return [compare_arrays(name, expected, actual, tolerance=tolerance, at_least=at_least)]
    same = expected is None and actual is None
    reason = "" if same else "one is a sequence or absent, the other is not, or lengths differ"
    described = _describe(expected), _describe(actual)
    return [OutputDifference(name, same, reason, *described)]


def compare_arrays(
    name: str,
    expected: Array,
    actual: Array,
    *,
    tolerance: float | None = None,
    at_least: float = 0.0,
) -> OutputDifference:
    """Compare two arrays.

    Arrays of different floating-point types are compared by value, and so is an integer type below
    8 bits with any other. NaN equals NaN and an infinity
    equals the same infinity, each at the same place only. Memory stays bounded by chunks.

    Args:
        name: What the result is called.
        expected: The array to compare with, of any type.
        actual: The array that is judged.
        tolerance: For floating-point arrays; None for that of the narrower of the two dtypes.
        at_least: What it is by default is raised to this.
    """
    blank = OutputDifference(name, True, "", _describe(expected), _describe(actual))
    if expected.shape != actual.shape:
        return replace(blank, ok=False, reason="shapes differ", cosine=0.0)
    if _is_float(expected) and _is_float(actual):
        if tolerance is not None:
            return _compare_floats(blank, expected, actual, tolerance)
        bound = max(tolerance_for(expected.dtype.name, actual.dtype.name), at_least)
        if not TOLERANCES["float16"] <= bound < TOLERANCES["bfloat16"]:
            return _compare_floats(blank, expected, actual, bound)
        return _compare_floats(blank, expected, actual, _OF_ELEMENT * bound, _OF_NORM * bound)
    if expected.dtype.name in _PACKED and actual.dtype.kind in "iu":
        expected = expected.astype(actual.dtype)
    if expected.dtype != actual.dtype:
        return replace(blank, ok=False, reason="element types differ", cosine=0.0)
    equal = bool(np.array_equal(expected, actual))
    if expected.dtype.kind in "iub":
        blank = replace(blank, **_flags(expected, actual))
    if equal or expected.dtype == object or expected.dtype.kind == "c":
        return replace(blank, ok=equal, reason="" if equal else "values differ")
    found = _compare_floats(blank, expected, actual, 0.0)
    return replace(found, ok=False, reason="values differ", ulps=None)


def _flags(expected: Array, actual: Array) -> dict[str, Any]:
    """Return whether all elements are zero, or the same, in each of the two."""
    both = (expected, actual)
    return {
        "all_zero": tuple(bool(each.size) and not each.any() for each in both),
        "constant": tuple(constant_flag(each) for each in both),
    }


def _is_float(array: Array) -> bool:
    return array.dtype.kind == "f" or (array.dtype.kind == "V" and _has_exponent(array.dtype))


def _has_exponent(dtype: np.dtype[np.generic]) -> bool:
    try:
        ml_dtypes.finfo(dtype)  # type: ignore[no-untyped-call]
    except ValueError:
        return False
    return True


def _compare_floats(
    blank: OutputDifference,
    expected: Array,
    actual: Array,
    tolerance: float,
    of_norm: float = math.inf,
) -> OutputDifference:
    sums = sums_of(expected, actual)
    reason = ""
    if sums.misplaced:
        reason = f"{sums.misplaced} elements are NaN or infinite in one of the two only"
    elif sums.max_rel > tolerance:
        reason = "values differ" if tolerance == 0.0 else "error above the tolerance"
    elif sums.norm() > of_norm * (1 + _FEW / math.sqrt(max(sums.differ, 1))):
        reason = f"the norm of the error, {sums.norm():.1e}, above {limit_text(of_norm)}"
    return replace(
        blank,
        ok=not reason,
        reason=reason,
        max_abs=sums.max_abs,
        max_rel=sums.max_rel,
        mean_abs=sums.mean_abs(),
        mean_rel=sums.mean_rel(),
        quantiles=sums.quantiles() if sums.max_abs else (),
        ulps=sums.ulps,
        snr=sums.snr(),
        cosine=sums.cosine(),
        norm=sums.norm(),
        tolerance=tolerance,
        nan=sums.nan,
        inf=sums.inf,
        denormal=sums.denormal,
        **_flags(expected, actual),
    )


def worse(a: OutputDifference, b: OutputDifference) -> OutputDifference:
    """Return the worse of two trials of one output, with the flags that both trials have."""
    found = b if (b.ok, -b.max_rel) < (a.ok, -a.max_rel) else a
    return replace(
        found, all_zero=_both(a.all_zero, b.all_zero), constant=_both(a.constant, b.constant)
    )


def _both(a: tuple[bool, bool], b: tuple[bool, bool]) -> tuple[bool, bool]:
    return a[0] and b[0], a[1] and b[1]
