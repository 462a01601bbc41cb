"""Attributes of a node beside those a pattern speaks of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import onnx_ir as ir

from vlmpass.ir_tools.operators.formal import Schema
from vlmpass.ir_tools.rewrite.expected import attribute_is

__all__ = ["axis_rank", "unmentioned"]


def unmentioned(
    node: ir.Node, mentioned: Mapping[str, object], schema: Schema | None
) -> Iterator[ir.Attr]:
    """Yield the attributes that a pattern does not mention and that are not at their defaults.

    Args:
        node: The node.
        mentioned: What the pattern says of attributes, by name.
        schema: The schema in force, for the defaults; None for an operator that is not known.
    """
    for name, attribute in node.attributes.data.items():
        if name in mentioned:
            continue
        default = None if schema is None else schema.default(name)
        if default is None or attribute.is_ref() or not attribute_is(attribute.value, default):
            yield attribute


def axis_rank(node: ir.Node, name: str) -> int | None:
    """Return the rank that negative numbers in an attribute count from, if it is an axis."""
    if name not in ("axis", "axes") or not node.inputs or node.inputs[0] is None:
        return None
    shape = node.inputs[0].shape
    if shape is None or node.op_type == "Unsqueeze":
        return None
    return shape.rank()
