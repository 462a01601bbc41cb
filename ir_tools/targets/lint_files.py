"""What is odd about the data files of a model: bytes that belong to none of its tensors."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator

import onnx_ir as ir

from vlmpass.ir_tools.graph.walk import tensor_slots
from vlmpass.ir_tools.targets.lint import Remark
from vlmpass.ir_tools.weights import file_range

__all__ = ["lint_files"]

_ALIGNED = 65536
"""Writers leave gaps of less than this, so that tensors start where they can be mapped."""

_HEADED = ".safetensors"
"""Files that say before their tensors what is in them."""


def lint_files(model: ir.Model) -> Iterator[Remark]:
    """Yield the data files of which a part belongs to no tensor, as after saving a model twice.

    Args:
        model: As it was loaded; no weight is read.
    """
    taken: dict[str, set[tuple[int, int]]] = defaultdict(set)
    for slot in tensor_slots(model):
        where = file_range(slot.tensor)
        if where is not None:
            taken[where.path].add((where.offset, where.offset + where.length))
    for path, ranges in sorted(taken.items()):
        size = os.path.getsize(path)
        start = min(first for first, _ in ranges) if path.endswith(_HEADED) else 0
        orphaned = sum(_gaps(ranges, start, size))
        if orphaned:
            reason = f"{orphaned} of its {size} bytes belong to no tensor"
            helps = "vlmpass convert --weights copy leaves them out"
            yield Remark("orphaned-bytes", reason, (os.path.basename(path),), helps)


def _gaps(ranges: Iterable[tuple[int, int]], start: int, size: int) -> Iterator[int]:
    """Yield the bytes between ranges, and before and after them, but those that align."""
    last = start
    for first, end in (*sorted(ranges), (size, size)):
        if first - last >= _ALIGNED:
            yield first - last
        last = max(last, end)
