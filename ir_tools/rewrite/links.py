"""Finding the further roots of a match among the users of what it has found already."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Final

import onnx_ir as ir

from vlmpass.ir_tools.rewrite.decomposition import Link
from vlmpass.ir_tools.rewrite.pattern import Capture, Op

__all__ = ["roots_beside"]

_USERS_TRIED: Final = 256


def roots_beside(
    link: Link, nodes: Mapping[Op, ir.Node], captured: Mapping[str, object]
) -> list[ir.Node]:
    """Return the nodes that may be a further root, in the order of their uses.

    Only the first 256 users of a value are followed, so that a value with many users costs each
    match the same and a sweep stays linear.

    Args:
        link: What the roots share and the operators between that and the further root.
        nodes: The nodes matched so far.
        captured: The captures so far.
    """
    if isinstance(link.start, Op):
        matched = nodes.get(link.start)
        if matched is not None and not link.path:
            return [matched]
        values = [] if matched is None else list(matched.outputs)
    else:
        assert isinstance(link.start, Capture)
        bound = captured.get(link.start.name)
        values = [bound] if isinstance(bound, ir.Value) else []
    users: list[ir.Node] = []
    for op in link.path:
        users = list(
            dict.fromkeys(
                use.node
                for value in values
                for use in islice(value.uses(), _USERS_TRIED)
                if (use.node.domain, use.node.op_type) in op.ops
            )
        )
        values = [output for user in users for output in user.outputs]
    taken = set(nodes.values())
    return [user for user in users if user not in taken]
