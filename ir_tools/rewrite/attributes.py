"""Looking up what a node says about an attribute, written out, by default or as an input."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import onnx_ir as ir

from vlmpass.ir_tools.rewrite.captures import MISS
from vlmpass.ir_tools.rewrite.values import attribute_is
from vlmpass.ir_tools.schemas import OpSchema, schema_of

__all__ = ["InputSlot", "axis_rank", "look_up", "schema_at", "unmentioned"]


@dataclass(frozen=True)
class InputSlot:
    """An attribute that this version of the operator has as an input."""

    index: int
    value: ir.Value | None


def schema_at(node: ir.Node, opsets: Mapping[str, int]) -> OpSchema | None:
    """Return the schema of a node under these imports, if onnx knows its operator."""
    version = opsets.get(node.domain)
    return None if version is None else schema_of(node.domain, node.op_type, version)


def look_up(node: ir.Node, name: str, schema: OpSchema | None) -> object:
    """Return an attribute's Python value, its `InputSlot`, None for no value, or `MISS`.

    `MISS` is a reference to an attribute of the function around it, which only a call decides.
    """
    attribute = node.attributes.get(name)
    if attribute is not None:
        return MISS if attribute.is_ref() else attribute.value
    if schema is None:
        return None
    index = schema.input_named(name)
    if index is None:
        return schema.attributes.get(name)
    return InputSlot(index, node.inputs[index] if index < len(node.inputs) else None)


def unmentioned(
    node: ir.Node, mentioned: Mapping[str, object], schema: OpSchema | None
) -> Iterator[ir.Attr]:
    """Yield the attributes that a pattern does not mention and that are not at their defaults."""
    for name, attribute in node.attributes.items():
        if name in mentioned:
            continue
        default = None if schema is None else schema.attributes.get(name)
        if default is None or attribute.is_ref() or not attribute_is(attribute.value, default):
            yield attribute


def axis_rank(node: ir.Node, name: str) -> int | None:
    """Return the rank that negative numbers in an attribute count from, if it is an axis."""
    if name not in ("axis", "axes") or not node.inputs or node.inputs[0] is None:
        return None
    shape = node.inputs[0].shape
    rank = None if shape is None else shape.rank()
    if rank is not None and node.op_type == "Unsqueeze":
        return None
    return rank
