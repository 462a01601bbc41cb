"""Arrays between two processes: one raw file and a manifest, read back as memory maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, TypedDict, cast

import ml_dtypes
import numpy as np
import numpy.typing as npt

__all__ = ["Array", "Entry", "Feed", "pack", "unpack"]

Array = npt.NDArray[np.generic]
Feed = dict[str, "Array | list[Array] | None"]
"""Values by name: a tensor, the tensors of a sequence, or None for an absent optional."""

_ALIGNMENT = 64
# Importing ml_dtypes is what teaches numpy the names bfloat16, float8_e4m3fn and their like.
assert np.dtype("bfloat16") == np.dtype(ml_dtypes.bfloat16)


class Entry(TypedDict, total=False):
    """One value in the manifest: a tensor, strings, a sequence (items) or an absent optional."""

    dtype: str
    shape: list[int]
    offset: int
    strings: list[str]
    items: list[Entry]


def pack(values: Mapping[str, Array | Sequence[Array] | None], path: Path) -> dict[str, Entry]:
    """Write the bytes of all values to a file and return what says where they lie."""
    with path.open("wb") as file:
        return {name: _pack_one(value, file) for name, value in values.items()}


def _pack_one(value: Array | Sequence[Array] | None, file: BinaryIO) -> Entry:
    if value is None:
        return {}
    if not isinstance(value, np.ndarray):
        return {"items": [_pack_one(item, file) for item in value]}
    if value.dtype.kind in "OUS":
        return {"strings": [str(item) for item in value.ravel()], "shape": list(value.shape)}
    file.seek(-file.tell() % _ALIGNMENT, 1)
    offset = file.tell()
    file.write(np.ascontiguousarray(value).reshape(-1).view(np.uint8).data)
    return {"dtype": value.dtype.name, "shape": list(value.shape), "offset": offset}


def unpack(manifest: Mapping[str, Entry], path: Path) -> Feed:
    """Return the values that `pack` wrote; tensors are read-only maps of the file."""
    raw: npt.NDArray[np.uint8] = np.empty(0, np.uint8)
    if path.stat().st_size:
        # The reference evaluator wants arrays of no other class.
        raw = np.memmap(path, np.uint8, "r").view(np.ndarray)
    return {name: _unpack_one(entry, raw) for name, entry in manifest.items()}


def _unpack_one(entry: Entry, raw: npt.NDArray[np.uint8]) -> Array | list[Array] | None:
    if "items" in entry:
        return [cast(Array, _unpack_one(item, raw)) for item in entry["items"]]
    if "strings" in entry:
        return np.array(entry["strings"], dtype=object).reshape(entry["shape"])
    if "dtype" not in entry:
        return None
    dtype = np.dtype(entry["dtype"])
    count = int(np.prod(entry["shape"], dtype=np.int64)) * dtype.itemsize
    return raw[entry["offset"] : entry["offset"] + count].view(dtype).reshape(entry["shape"])
