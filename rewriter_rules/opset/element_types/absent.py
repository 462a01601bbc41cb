"""Element types that an opset does not have, and nodes that are refused for one."""

from __future__ import annotations

from functools import cache

import onnx_ir as ir

from vlmpass.ir_tools.operators.dtypes import wider
from vlmpass.ir_tools.operators.schema import history, schema
from vlmpass.ir_tools.operators.type_texts import spell
from vlmpass.ir_tools.system.opsets import OLDEST_OPSET, newest_opset
from vlmpass.rewriter_rules.opset.seen import SeenValue
from vlmpass.rewriter_rules.opset.table import CannotConvert
from vlmpass.rewriter_rules.opset.view import SeenNode

__all__ = ["absent_types", "is_absent", "refuse_absent", "wider_dtype", "wider_type"]

_CONTAINERS = {ir.SequenceType: 11, ir.OptionalType: 15}
"""The opset that brought each type of value that is not a tensor."""


@cache
def _first(dtype: ir.DataType) -> int:
    """Return the opset that brought an element type: Cast always is among the first to have it."""
    if not wider(dtype):
        return OLDEST_OPSET
    name = spell(ir.TensorType(dtype))
    having = (each for each in history("Cast") if name in schema("Cast", each).input(0).types)
    return min(having, default=newest_opset() + 1)


def is_absent(dtype: ir.DataType | None, opset: int) -> bool:
    """Say whether an opset does not have an element type."""
    return dtype is not None and _first(dtype) > opset


@cache
def absent_types(opset: int) -> frozenset[ir.DataType]:
    """Return the element types that an opset does not have."""
    return frozenset(each for each in ir.DataType if wider(each) and _first(each) > opset)


@cache
def wider_dtype(dtype: ir.DataType, opset: int) -> ir.DataType:
    """Return the best type of an opset that holds all values of one that it does not have."""
    return next(wide for wide in wider(dtype) if not is_absent(wide, opset))


def wider_type(kind: ir.TypeProtocol, opset: int) -> ir.TypeProtocol:
    """Return a type like another, of an element type that an opset has."""
    if isinstance(kind, (ir.SequenceType, ir.OptionalType)):
        return type(kind)(wider_type(kind.elem_type, opset), denotation=kind.denotation)
    if not isinstance(kind, ir.TensorType) or not is_absent(kind.dtype, opset):
        return kind
    return ir.TensorType(wider_dtype(kind.dtype, opset), denotation=kind.denotation)


def refuse_absent(node: SeenNode, target: int, main: ir.Graph, *, wider: bool) -> None:
    """Refuse a node that works on values of a type that an opset does not have.

    Args:
        node: A node of the model, as it is seen.
        target: The opset.
        main: The model's graph.
        wider: Whether its inputs and outputs have other types already where they can.

    Raises:
        CannotConvert: It works on such values.
    """
    values = [each for each in (*node.inputs, *node.outputs) if isinstance(each, SeenValue)]
    strange = [(value, since) for value in values if (since := _brought(value)) > target]
    if not strange:
        return
    outer = [
        (value, since)
        for value, since in strange
        if _is_interface(value.original, main) and not (wider and is_absent(value.dtype, target))
    ]
    value, since = (outer or strange)[0]
    contained = isinstance(value.type, (ir.SequenceType, ir.OptionalType))
    if not outer and contained:
        return
    does = "the graph takes or gives" if outer else "it works on"
    other = "convert the element type first"
    if outer and is_absent(value.dtype, target):
        other = "let the graph take and give a wider type with interface=wider (--widen-io)"
    raise CannotConvert(
        f"{does} {_said(value)}, which ONNX does not have before opset {since}",
        f"choose opset {since} or higher, or {other}",
    )


def _brought(value: ir.Value) -> int:
    """Return the opset that brought a value's type."""
    kind, least = value.type, OLDEST_OPSET
    while isinstance(kind, (ir.SequenceType, ir.OptionalType)):
        least = max(least, _CONTAINERS[type(kind)])
        kind = kind.elem_type
    return max(least, _first(value.dtype)) if value.dtype is not None else least


def _said(value: ir.Value) -> str:
    if value.dtype is None or isinstance(value.type, (ir.SequenceType, ir.OptionalType)):
        return spell(value.type) or "a sequence or an optional of no type"
    return value.dtype.name.lower()


def _is_interface(value: ir.Value, main: ir.Graph) -> bool:
    return (value.is_graph_input() or value.is_graph_output()) and value.graph is main
