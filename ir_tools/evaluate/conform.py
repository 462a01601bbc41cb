"""Whether a node with its inputs is one that its operator's schema admits."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from vlmpass.ir_tools.operators.schema import Formal, Schema, in_force
from vlmpass.ir_tools.operators.type_texts import spell
from vlmpass.ir_tools.system.opsets import OLDEST_OPSET

__all__ = ["conforms", "outputs_conform"]

_Types = Sequence[ir.DataType | None]


def _binds(types: dict[str, str], formal: Formal, dtype: ir.DataType | None) -> bool:
    """Whether a type is admitted and the one that the formal's type parameter has already."""
    spelt = None if dtype is None else spell(ir.TensorType(dtype))
    if spelt is None or spelt not in formal.types:
        return False
    if formal.variadic and not formal.homogeneous:
        return True
    return types.setdefault(formal.parameter, spelt) == spelt


def _schema(node: ir.Node, opset: int) -> Schema | None:
    """Return the schema in force; None below the first opset with today's broadcasting."""
    return in_force("", node.op_type, opset) if opset >= OLDEST_OPSET else None


def conforms(node: ir.Node, inputs: _Types, opset: int) -> bool:
    """Whether a node has as many inputs and outputs as its operator, of types it takes together.

    Args:
        node: One of the default domain.
        inputs: Element types of its inputs, None for one left out.
        opset: The version imported.
    """
    schema = _schema(node, opset)
    if schema is None or not schema.min_inputs <= len(inputs) <= schema.max_inputs:
        return False
    types: dict[str, str] = {}
    for index, dtype in enumerate(inputs):
        formal = schema.input(index)
        if not (formal.optional if dtype is None else _binds(types, formal, dtype)):
            return False
    return len(node.outputs) <= schema.max_outputs


def outputs_conform(node: ir.Node, inputs: _Types, outputs: _Types, opset: int) -> bool:
    """Whether outputs have the types that the operator gives to outputs of such inputs.

    Args:
        node: An operator of the default domain.
        inputs: Element types of its inputs; None for one that is absent or of no known type.
        outputs: Element types of its outputs.
        opset: The version imported.
    """
    schema = _schema(node, opset)
    if schema is None:
        return False
    types: dict[str, str] = {}
    for index, dtype in enumerate(inputs):
        if dtype is not None:
            _binds(types, schema.input(index), dtype)
    return all(_binds(types, schema.output(index), dtype) for index, dtype in enumerate(outputs))
