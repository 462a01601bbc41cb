"""What the bounds of a Slice mean on an axis of known size."""

from __future__ import annotations

__all__ = ["slice_of"]

_ENDLESS = 2**31 - 1


def slice_of(start: int, end: int, step: int, size: int) -> slice | None:
    """Return the Python slice that takes what a Slice takes of one axis.

    Args:
        start: As given, from either end.
        end: Likewise.
        step: Not 0.
        size: Of the axis.

    Returns:
        None where the standard and runtimes differ. Backwards from before the first element, the
        standard clamps the start onto it, and the reference evaluator finds nothing to take;
        backwards to INT_MAX, it finds nothing either, and ONNX Runtime takes all.
    """
    if step > 0:
        return slice(start, end, step)
    if end >= _ENDLESS:
        return None
    start = start + size if start < 0 else start
    end = end + size if end < 0 else end
    if step == 0 or start < 0:
        return None
    return slice(min(start, size - 1), None if end < 0 else end, step) if size else slice(0, 0)
