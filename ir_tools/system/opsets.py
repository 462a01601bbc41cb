"""Which opsets there are; asked before anything is loaded, so that it imports little."""

from __future__ import annotations

__all__ = ["FIRST_OPSET", "OLDEST_OPSET", "newest_opset"]

FIRST_OPSET = 1
"""The first opset there is: models are read from it on."""

OLDEST_OPSET = 7
"""The first opset with today's broadcasting: none below it is written."""


def newest_opset() -> int:
    """Return the newest opset that the installed onnx knows."""
    from onnx import defs

    return defs.onnx_opset_version()
