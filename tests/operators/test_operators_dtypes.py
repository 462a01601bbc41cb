"""Which element type holds all values of another: by brute force over all patterns of bits."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from vlmpass.ir_tools.operators.dtypes import holds_all, wider

NUMBERS = [
    each
    for each in ir.DataType
    if each.name not in ("UNDEFINED", "STRING", "COMPLEX64", "COMPLEX128")
]
TRIED = [each for each in NUMBERS if each == ir.DataType.BOOL or each.bitwidth <= 16]
WIDE = [each for each in NUMBERS if each not in TRIED]


def values(dtype: ir.DataType) -> np.ndarray:
    if dtype == ir.DataType.BOOL:
        return np.array([0.0, 1.0])
    if dtype.is_integer():
        return np.arange(int(dtype.min), int(dtype.max) + 1, dtype=np.float64)
    raw = np.arange(2**dtype.bitwidth, dtype=np.uint16 if dtype.bitwidth == 16 else np.uint8)
    with np.errstate(invalid="ignore"):  # NaN that signal
        return raw.view(dtype.numpy()).astype(np.float64)


def holds(wide: ir.DataType, numbers: np.ndarray) -> bool:
    """Whether all come back from a type, the signs of zeros and NaN included."""
    if wide == ir.DataType.BOOL or wide.is_integer():
        low, high = (0, 1) if wide == ir.DataType.BOOL else (int(wide.min), int(wide.max))
        with np.errstate(invalid="ignore"):
            whole = np.isfinite(numbers) & (numbers == np.floor(numbers))
        zero = (numbers == 0) & np.signbit(numbers)
        return bool(np.all(whole & (numbers >= low) & (numbers <= high) & ~zero))
    with np.errstate(all="ignore"):
        back = numbers.astype(wide.numpy()).astype(np.float64)
    same = (back == numbers) & (np.signbit(back) == np.signbit(numbers))
    return bool(np.all(same | (np.isnan(back) & np.isnan(numbers))))


@pytest.mark.parametrize("narrow", TRIED, ids=str)
def test_operators_one_type_holds_another(narrow: ir.DataType) -> None:
    numbers = values(narrow)
    scales = ir.DataType.FLOAT8E8M0  # into which numpy rounds what it has not
    found = {wide for wide in NUMBERS if wide != scales and holds(wide, numbers)} | {narrow}
    assert {wide for wide in NUMBERS if holds_all(wide, narrow)} == found


@pytest.mark.parametrize("narrow", WIDE, ids=str)
def test_operators_wide_types_are_held_by_few(narrow: ir.DataType) -> None:
    known = {
        "FLOAT": {"DOUBLE"}, "INT32": {"INT64", "DOUBLE"}, "UINT32": {"INT64", "UINT64", "DOUBLE"},
    }  # fmt: skip
    found = {wide.name for wide in NUMBERS if wide != narrow and holds_all(wide, narrow)}
    assert found == known.get(narrow.name, set())


def test_operators_wider_types_come_in_order() -> None:
    names = {each.name: [wide.name for wide in wider(each)] for each in NUMBERS}
    assert names["BFLOAT16"] == ["FLOAT", "DOUBLE"]
    assert names["FLOAT8E4M3FN"] == ["FLOAT16", "FLOAT", "DOUBLE"]
    assert names["INT4"] == ["INT8", "INT32", "INT64", "FLOAT", "DOUBLE"]
    assert names["UINT32"] == ["INT64", "DOUBLE"]
    assert names["UINT64"] == names["INT64"] == names["DOUBLE"] == []
