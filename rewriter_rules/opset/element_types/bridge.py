"""Element types that an opset does not admit, bridged by Casts where every value survives.

A node runs in a wider type that holds all values of the refused one: exactly for operators that
only move or compare values, and rounded once for arithmetic, as the narrow type itself would.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from vlmpass.ir_tools.graph.tape import Tape
from vlmpass.ir_tools.operators import Kind, is_exact, named
from vlmpass.ir_tools.operators.dtypes import holds_all, wider
from vlmpass.ir_tools.operators.schema import Formal, Schema
from vlmpass.ir_tools.operators.type_texts import spell
from vlmpass.rewriter_rules.opset.queries import again
from vlmpass.rewriter_rules.opset.table import HIGHER, CannotConvert

__all__ = ["bridge", "misfits"]

_COMPUTING = named(
    *(Kind.ELEMENTWISE, Kind.REDUCTION, Kind.CUMULATION, Kind.NORMALIZATION, Kind.PRODUCT),
    *(Kind.POOL, Kind.RESAMPLING, Kind.RECURRENCE, Kind.TRANSFORM, Kind.LOSS, Kind.SCATTER),
) | {"QLinearMatMul", "Range"}
"""Operators that compute: a wider floating type gives at least the accuracy of the narrow one."""

_WIDE = ir.DataType.DOUBLE
_NARROW_TEXT = spell(ir.TensorType(ir.DataType.FLOAT))
_FLOATING = frozenset(dtype for dtype in ir.DataType if dtype.is_floating_point())


def _substitute(
    node: ir.Node, dtypes: Sequence[ir.DataType], allowed: frozenset[str], nearly: bool
) -> ir.DataType:
    """Return the type in which an operator may run instead of those that are not admitted."""
    operator = node.op_type
    said = " and ".join(dtype.name.lower() for dtype in dtypes)
    carrying = is_exact(node)
    if not carrying and operator not in _COMPUTING:
        raise CannotConvert(f"{operator} does not admit {said} at the lower opset", _REMEDY)
    found = [
        each
        for each in (*dtypes, *wider(dtypes[0]))
        if spell(ir.TensorType(each)) in allowed
        and all(holds_all(each, dtype) for dtype in dtypes)
        and (carrying or operator in _BY_FLOAT or _alike(each, dtypes))
    ]
    if not found and nearly and dtypes == [_WIDE] and _NARROW_TEXT in allowed:
        return ir.DataType.FLOAT
    if not found:
        raise CannotConvert(
            f"{operator} admits neither {said} nor a type that holds all its values", _REMEDY
        )
    return found[0]


def _alike(wide: ir.DataType, dtypes: Sequence[ir.DataType]) -> bool:
    return all((dtype in _FLOATING) == (wide in _FLOATING) for dtype in dtypes)


_REMEDY = f"{HIGHER}, or convert the element type first"

_BY_FLOAT = frozenset({"ReduceLogSum", "ReduceLogSumExp", "Erf"})
"""Of the computing ones, those whose integers are computed in a floating type anyway."""


def types_by_parameter(node: ir.Node, found: Schema) -> dict[str, tuple[Formal, list[ir.Value]]]:
    """Return by type parameter a formal that has it and the typed values it stands for."""
    bound: dict[str, tuple[Formal, list[ir.Value]]] = {}
    pairs = [(found.input(i), value) for i, value in enumerate(node.inputs) if value is not None]
    pairs += [(found.output(i), value) for i, value in enumerate(node.outputs)]
    for formal, value in pairs:
        if value.type is not None:
            key = formal.parameter if formal.homogeneous else f"{formal.parameter} {len(bound)}"
            bound.setdefault(key, (formal, []))[1].append(value)
    return bound


def misfits(node: ir.Node, found: Schema) -> bool:
    """Say whether a schema does not admit the types that a node has."""
    for formal, values in types_by_parameter(node, found).values():
        names = {spell(value.type) for value in values}
        if len(names) > 1 or not names <= formal.types:
            return True
    return False


def _choices(node: ir.Node, found: Schema, nearly: bool) -> dict[str, ir.DataType]:
    """Return the type to run in by type parameter, for those that need another one."""
    chosen: dict[str, ir.DataType] = {}
    for formal, values in types_by_parameter(node, found).values():
        names = {spell(value.type) for value in values}
        if len(names) == 1 and names <= formal.types:
            continue
        for value in values:
            if not isinstance(value.type, ir.TensorType):
                raise CannotConvert(
                    f"{found.name} does not admit the type {spell(value.type)}", _REMEDY
                )
        dtypes = list(dict.fromkeys(v.dtype for v in values if v.dtype is not None))
        chosen[formal.parameter] = _substitute(node, dtypes, formal.types, nearly)
    return chosen


def bridge(
    op: Tape, node: ir.Node, found: Schema, *, nearly: bool = False
) -> list[ir.Value | None]:
    """Cast(Op(Cast(x))), where Op does not admit x's type and a wider one holds all its values.

    Args:
        op: The tape.
        node: The node.
        found: The schema of its operator at the version to write.
        nearly: Whether float32 may stand for float64, which it does not hold.
    """
    chosen = _choices(node, found, nearly)
    inputs: list[ir.Value | None] = []
    for index, value in enumerate(node.inputs):
        wider = chosen.get(found.input(index).parameter)
        bridged = value is not None and wider is not None and value.dtype != wider
        inputs.append(op.Cast(value, to=wider) if bridged else value)
    results: list[ir.Value | None] = []
    for index, (old, new) in enumerate(zip(node.outputs, again(op, node, inputs), strict=True)):
        wider = chosen.get(found.output(index).parameter)
        if wider is None or old.dtype in (None, wider):
            results.append(new)
            continue
        new.type = ir.TensorType(wider)
        results.append(op.Cast(new, to=old.dtype))
    return results
