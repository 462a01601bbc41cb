"""Data files that are safetensors files at the same time.

The format allows no gaps, so tensors whose size is a multiple of a page come first and each of them
starts at a page border.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

import onnx_ir as ir

from vlmpass.ir_tools.save.collect import Part
from vlmpass.ir_tools.save.pack import Block, NewFile, align, too_large

__all__ = ["pack_safetensors"]

_HEADER_ALIGNMENT = 4096
_MAX_ALIGNMENT = 1 << 16

# The names every release of safetensors knows. Other types are stored as plain bytes; the model
# file says what they are.
_DTYPES = {
    ir.DataType.BOOL: "BOOL",
    ir.DataType.UINT8: "U8",
    ir.DataType.INT8: "I8",
    ir.DataType.UINT16: "U16",
    ir.DataType.INT16: "I16",
    ir.DataType.UINT32: "U32",
    ir.DataType.INT32: "I32",
    ir.DataType.UINT64: "U64",
    ir.DataType.INT64: "I64",
    ir.DataType.FLOAT16: "F16",
    ir.DataType.BFLOAT16: "BF16",
    ir.DataType.FLOAT: "F32",
    ir.DataType.DOUBLE: "F64",
    ir.DataType.FLOAT8E4M3FN: "F8_E4M3",
    ir.DataType.FLOAT8E5M2: "F8_E5M2",
}


def _entry(block: Block, part: Part, offset: int) -> dict[str, object]:
    dtype = _DTYPES.get(part.weight.dtype)
    shape = [int(size) for size in part.weight.shape.numpy()] if dtype else [block.nbytes]
    return {
        "dtype": dtype or "U8",
        "shape": shape,
        "data_offsets": [offset, offset + block.nbytes],
    }


def _file(blocks: Sequence[tuple[int, str, Block, Part]], nbytes: int, room: int) -> NewFile:
    entries: dict[str, object] = {"__metadata__": {"format": "onnx"}}
    for offset, name, block, part in blocks:
        entries[name] = _entry(block, part, offset)
    text = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode()
    header = (room - 8).to_bytes(8, "little") + text.ljust(room - 8)
    placed = tuple((room + offset, block) for offset, _, block, _ in blocks)
    return NewFile(room + nbytes, placed, ((0, header),))


def _entry_room(name: str, part: Part) -> int:
    """Return bytes that hold a tensor's entry in the header for certain."""
    return len(json.dumps(name, ensure_ascii=False).encode()) + 100 + 24 * len(part.weight.shape)


def _header_room(entries: int) -> int:
    """Return where the data starts, given the bytes of all entries."""
    return align(64 + entries, _HEADER_ALIGNMENT)


def _alignment(nbytes: int) -> int:
    return min(nbytes & -nbytes, _MAX_ALIGNMENT)


def _unique(name: str, taken: set[str]) -> str:
    fresh, number = name, 0
    while fresh in taken:
        number += 1
        fresh = f"{name}_{number}"
    taken.add(fresh)
    return fresh


def pack_safetensors(blocks: Iterable[Block], parts: Sequence[Part], limit: int) -> list[NewFile]:
    """Return safetensors files that hold blocks, each of one part, none above the limit.

    Args:
        blocks: Ranges of bytes to write, each of one part.
        parts: The weights that blocks refer to by index.
        limit: Most bytes of a file.

    Raises:
        SaveError: A block alone is above the limit, header included.
    """
    taken = {"__metadata__"}
    files: list[NewFile] = []
    placed: list[tuple[int, str, Block, Part]] = []
    entries = end = 0
    for block in sorted(blocks, key=lambda block: -_alignment(block.nbytes)):
        part = parts[block.members[0][0]]
        name = _unique(part.name, taken)
        room = _entry_room(name, part)
        if placed and _header_room(entries + room) + end + block.nbytes > limit:
            files.append(_file(placed, end, _header_room(entries)))
            placed, entries, end = [], 0, 0
        if _header_room(room) + block.nbytes > limit:
            raise too_large(block, limit)
        placed.append((end, name, block, part))
        entries, end = entries + room, end + block.nbytes
    if placed:
        files.append(_file(placed, end, _header_room(entries)))
    return files
