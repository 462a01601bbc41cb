"""The error about one node."""

from __future__ import annotations

import onnx_ir as ir

from vlmpass.ir_tools.errors import CheckError, cut
from vlmpass.ir_tools.graph.describe import name_node, neighbourhood

__all__ = ["fault"]

_LINES = 4


def fault(node: ir.Node, reason: str, remedy: str = "", said: str = "") -> CheckError:
    """Return an error that shows a node among its neighbours.

    Args:
        node: The node at fault.
        reason: What is wrong, one line.
        remedy: What to do about it.
        said: The words of the checker that found it, if that was not vlmpass.
    """
    error = CheckError(f"{name_node(node)}: {reason}", remedy=remedy)
    words = [cut(line.strip()) for line in said.splitlines() if line.strip()]
    more = [f"… and {len(words) - _LINES} more lines"] if len(words) > _LINES else []
    said_lines = (f"onnx says: {line}" for line in [*words[:_LINES], *more])
    error.context = (*neighbourhood(node), *said_lines)
    return error
