"""Constants of element types that the lower opset does not have, kept in wider ones.

A weight of int4, float8 or, below opset 13, bfloat16 may be stored in a type that holds all its
values, if all that is ever done with it is to move, compare, cast or dequantise its elements. What
is computed in such a type, what the model takes or gives in it, and what is rounded or quantised
to it stays as it is, and its nodes are refused for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cache

import onnx_ir as ir

from vlmpass.ir_tools.opsets import (
    OLDEST_OPSET,
    default_opset,
    history,
    newest_opset,
    schema,
    since,
    type_name,
)
from vlmpass.ir_tools.walk import Scope
from vlmpass.ir_tools.weights import as_weight, cast
from vlmpass.rewriter_rules.opset.bridge import CARRYING, WIDER
from vlmpass.rewriter_rules.opset.facts import integer
from vlmpass.rewriter_rules.opset.table import refuse

__all__ = ["Undo", "refuse_absent", "widen"]

Undo = Callable[[], None]

_NEVER = frozenset({"CastLike", "OneHot", "NonMaxSuppression"})
"""Of the carrying operators, those that give a type to something else, or that round."""

_CONTAINERS = {ir.SequenceType: 11, ir.OptionalType: 15}
"""The opset that brought each type of value that is not a tensor."""

_SINKS = frozenset({"Cast", "DequantizeLinear"})


@cache
def _first(dtype: ir.DataType) -> int:
    """Return the opset that brought an element type: Cast always is among the first to have it."""
    if dtype not in WIDER:
        return OLDEST_OPSET
    name = type_name(ir.TensorType(dtype))
    having = (each for each in history("Cast") if name in schema("Cast", each).input(0).types)
    return min(having, default=newest_opset() + 1)


def _absent(dtype: ir.DataType | None, opset: int) -> bool:
    return dtype is not None and _first(dtype) > opset


def refuse_absent(node: ir.Node, target: int, main: ir.Graph) -> None:
    """Refuse a node that works on values of a type that an opset does not have.

    Args:
        node: A node of the model.
        target: The opset.
        main: The model's graph, whose inputs and outputs nothing changes.
    """
    values = [value for value in (*node.inputs, *node.outputs) if value is not None]
    strange = [(value, since) for value in values if (since := _brought(value)) > target]
    if not strange:
        return
    outer = [(value, since) for value, since in strange if _is_interface(value, main)]
    value, since = (outer or strange)[0]
    does = "the graph takes or gives" if outer else "it works on"
    if not outer and isinstance(value.type, (ir.SequenceType, ir.OptionalType)):
        return
    refuse(
        f"{does} {_said(value)}, which ONNX does not have before opset {since}",
        f"choose opset {since} or higher, or convert the element type first",
    )


def _brought(value: ir.Value) -> int:
    """Return the opset that brought a value's type."""
    kind, least = value.type, OLDEST_OPSET
    while isinstance(kind, (ir.SequenceType, ir.OptionalType)):
        least = max(least, _CONTAINERS[type(kind)])
        kind = kind.elem_type
    return max(least, _first(value.dtype)) if value.dtype is not None else least


def _said(value: ir.Value) -> str:
    assert value.dtype is not None
    if isinstance(value.type, (ir.SequenceType, ir.OptionalType)):
        return str(type_name(value.type))
    return value.dtype.name.lower()


def _is_interface(value: ir.Value, main: ir.Graph) -> bool:
    return (value.is_graph_input() or value.is_graph_output()) and value.graph is main


def widen(scopes: Sequence[Scope], target: int) -> list[Undo]:
    """Give constants, and the values moved out of them, element types that an opset has.

    Args:
        scopes: All graphs of the model.
        target: The opset.

    Returns:
        What takes it all back, in any order; empty if nothing was changed.
    """
    undo: list[Undo] = []
    for scope in scopes:
        source = default_opset(scope.opsets)
        if source is None or source <= target:
            continue
        for value in _constants(scope):
            kind = _dtype(value)
            if kind is not None and _absent(kind, target):
                kin = _kin(value, kind, source, target)
                undo += [_retype(each, WIDER[kind][0]) for each in kin]
    return undo


def _constants(scope: Scope) -> Iterable[ir.Value]:
    if isinstance(scope.graph, ir.Graph):
        yield from scope.graph.initializers.values()
    for node in scope.graph:
        if (node.domain, node.op_type) == ("", "Constant"):
            yield node.outputs[0]


def _tensor(value: ir.Value) -> ir.TensorProtocol | None:
    """Return the tensor of an initializer or Constant, None for any other value."""
    node = value.producer()
    if node is None:
        return None if value.is_graph_input() else value.const_value
    if (node.domain, node.op_type) != ("", "Constant"):
        return None
    given = node.attributes.get("value")
    return None if given is None or given.is_ref() else given.as_tensor()


def _dtype(value: ir.Value) -> ir.DataType | None:
    tensor = _tensor(value)
    return value.dtype if tensor is None else tensor.dtype


def _kin(seed: ir.Value, kind: ir.DataType, source: int, target: int) -> list[ir.Value]:
    """Return all values that must change their type along with one; none if one of them cannot."""
    found = {id(seed): seed}
    pending = [seed]
    while pending:
        value = pending.pop()
        if value.is_graph_output() or _dtype(value) not in (None, kind):
            return []
        nodes = [(node, index, False) for node, index in value.uses()]
        producer = value.producer()
        if _tensor(value) is None:
            if producer is None:
                return []
            nodes.append((producer, value.index() or 0, True))
        for node, index, produces in nodes:
            tied = _tied(node, index, produces, source, target)
            if tied is None:
                return []
            for each in tied:
                if id(each) not in found:
                    found[id(each)] = each
                    pending.append(each)
    return list(found.values())


def _tied(
    node: ir.Node, index: int, produces: bool, source: int, target: int
) -> list[ir.Value] | None:
    """Return the values whose type is tied to that of one operand or result of a node.

    None if the node needs the very type.
    """
    if node.domain != "":
        return None
    if node.op_type in _SINKS:
        return None if produces else _read(node, index, target)
    version = since(node.op_type, source)
    if version is None or node.op_type not in CARRYING or node.op_type in _NEVER:
        return None
    found = schema(node.op_type, version)
    formal = found.output(index) if produces else found.input(index)
    formals = [(found.input(i), v) for i, v in enumerate(node.inputs) if v is not None]
    formals += [(found.output(i), v) for i, v in enumerate(node.outputs)]
    return [value for other, value in formals if other.parameter == formal.parameter]


def _read(node: ir.Node, index: int, target: int) -> list[ir.Value] | None:
    """Return what shares the type of a Cast's or DequantizeLinear's operand."""
    if node.op_type == "Cast":
        to = ir.DataType(integer(node, "to"))
        return None if to == ir.DataType.STRING or _absent(to, target) else []
    if index == 1:
        return None
    return [value for value in (node.inputs[0], *node.inputs[2:]) if value is not None]


def _retype(value: ir.Value, wide: ir.DataType) -> Undo:
    """Change the element type of a value, and of the tensor that it is."""
    kind, tensor, producer = value.type, _tensor(value), value.producer()
    given = producer.attributes.get("value") if producer is not None and tensor else None
    constant = value.const_value

    def undo() -> None:
        value.type, value.const_value = kind, constant
        if producer is not None and given is not None:
            producer.attributes["value"] = given

    if kind is not None:
        value.type = ir.TensorType(wide)
    if tensor is None:
        return undo
    wider = cast(as_weight(tensor), wide)
    wider.name = tensor.name
    if producer is not None:
        producer.attributes["value"] = ir.AttrTensor("value", wider)
    if constant is not None:
        value.const_value = wider
    return undo
