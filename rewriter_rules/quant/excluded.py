"""What a user leaves out of rounding: operators, and nodes by their names."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import onnx_ir as ir

from vlmpass.ir_tools.graph.walk import all_nodes
from vlmpass.ir_tools.operators.schema import history

__all__ = ["excludes", "fault_of", "unmatched"]


def excludes(patterns: Sequence[str], node: ir.Node) -> bool:
    """Return whether one of some operators or regular expressions of names is a node's."""
    name = node.name or ""
    return any(each == node.op_type or re.search(each, name) for each in patterns)


def fault_of(patterns: Sequence[str]) -> str:
    """Return what is wrong with the first expression that is none; empty if all are right."""
    for expression in patterns:
        try:
            re.compile(expression)
        except re.error as error:
            return f"'{expression}': {error}"
    return ""


def unmatched(patterns: Sequence[str], model: ir.Model) -> Iterator[str]:
    """Yield what is neither an operator that onnx knows nor finds a node's name."""
    nodes = list(all_nodes(model))
    for each in patterns:
        if not history(each) and not any(excludes([each], node) for node in nodes):
            yield each
