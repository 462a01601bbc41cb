"""Sub-byte element types: many elements in a byte in files, one element a byte in memory."""

from __future__ import annotations

import math
import sys

import numpy as np
import onnx_ir as ir

from vlmpass.ir_tools.weights.arrays import AnyArray, ByteArray

__all__ = ["GROUP", "is_packed", "pack", "packed_size", "to_file_order", "unpack"]

GROUP = 4
"""The number of elements that always fill whole bytes, whatever the type."""


def is_packed(dtype: ir.DataType) -> bool:
    """Whether elements of this type share bytes in files."""
    return dtype.bitwidth < 8


def packed_size(dtype: ir.DataType, count: int) -> int:
    """Return the bytes that a number of elements take in a file."""
    return math.ceil(count * dtype.bitwidth / 8)


def unpack(data: ByteArray, count: int, dtype: ir.DataType) -> AnyArray:
    """Spread packed bytes into one element a byte, the lower bits first.

    Args:
        data: Packed bytes, starting at a group border.
        count: Elements to return.
        dtype: A type of 2, 4 or 6 bits.
    """
    bits = dtype.bitwidth
    if bits == 6:
        return _unpack_6(data, count).view(dtype.numpy())
    per_byte = 8 // bits
    out = np.empty((data.size, per_byte), np.uint8)
    for place in range(per_byte):
        np.right_shift(data, place * bits, out=out[:, place])
    out &= np.uint8((1 << bits) - 1)
    return out.reshape(-1)[:count].view(dtype.numpy())


def pack(array: AnyArray, dtype: ir.DataType) -> ByteArray:
    """Squeeze one element a byte into packed bytes; missing places of the last byte are 0."""
    bits = dtype.bitwidth
    per_group = GROUP if bits == 6 else 8 // bits
    flat = array.reshape(-1).view(np.uint8)
    groups = -(-flat.size // per_group)
    if groups * per_group != flat.size:
        flat = np.concatenate([flat, np.zeros(groups * per_group - flat.size, np.uint8)])
    parts = (flat & np.uint8((1 << bits) - 1)).reshape(groups, per_group)
    if bits == 6:
        return _pack_6(parts)[: packed_size(dtype, array.size)]
    # neighbours as one number, whose bytes move together
    several = parts.view(f"<u{per_group}")
    joined = several.copy()
    for place in range(1, per_group):
        joined |= several >> (place * (8 - bits))
    out: ByteArray = joined.reshape(-1).astype(np.uint8)
    return out


def _unpack_6(data: ByteArray, count: int) -> ByteArray:
    groups = -(-count // GROUP)
    padded = np.zeros(groups * 3, np.uint8)
    padded[: data.size] = data[: padded.size]
    a, b, c = padded.reshape(groups, 3).T
    out = np.empty((groups, GROUP), np.uint8)
    out[:, 0] = a & 0x3F
    out[:, 1] = (a >> 6) | ((b & 0x0F) << 2)
    out[:, 2] = (b >> 4) | ((c & 0x03) << 4)
    out[:, 3] = c >> 2
    return out.reshape(-1)[:count]


def _pack_6(parts: ByteArray) -> ByteArray:
    out = np.empty((len(parts), 3), np.uint8)
    out[:, 0] = parts[:, 0] | (parts[:, 1] << 6)
    out[:, 1] = (parts[:, 1] >> 2) | (parts[:, 2] << 4)
    out[:, 2] = (parts[:, 2] >> 4) | (parts[:, 3] << 2)
    return out.reshape(-1)


def to_file_order(array: AnyArray, dtype: ir.DataType) -> AnyArray:
    """Turn native byte order into the little endian of files, or back."""
    complex_type = dtype in (ir.DataType.COMPLEX64, ir.DataType.COMPLEX128)
    width = array.itemsize // 2 if complex_type else array.itemsize
    if sys.byteorder == "little" or width == 1:
        return array
    swapped: AnyArray = array.view(f"u{width}").byteswap().view(array.dtype)
    return swapped
