"""Values of element types that the lower opset does not have, carried in wider ones.

A value of int4, float8 or, below opset 13, bfloat16 gets a type that holds all its values, weights
included, which are cast as they are written. What moves, compares or reads such values works on
the wider type as it stands, and what computes in bfloat16 computes in float32; what makes such a
value out of another, as Cast and QuantizeLinear do, has to round it, and is named for that. A
node that needs the very type keeps it, for its operands and all that have their type with them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import onnx_ir as ir

from vlmpass.ir_tools.graph.walk import Scope, holds_graphs
from vlmpass.ir_tools.operators.schema import default_opset
from vlmpass.ir_tools.operators.type_texts import dtype_of, element
from vlmpass.ir_tools.types import Typing
from vlmpass.ir_tools.weights import as_weight, cast
from vlmpass.rewriter_rules.opset.element_types.absent import absent_types, wider_dtype, wider_type
from vlmpass.rewriter_rules.opset.element_types.type_groups import (
    NAMES_ITS_TYPE,
    READING,
    ROUNDING,
    TypeGroups,
    computes,
)
from vlmpass.rewriter_rules.opset.view import Overlay

__all__ = ["Change", "Interface", "Widening", "widen"]

Interface = Literal["keep", "wider"]

_NAMES_A_TYPE = frozenset({*NAMES_ITS_TYPE, "precision", "stash_type", "softmax_precision"})


@dataclass(frozen=True)
class Change:
    """An input or output of the model that has another element type.

    Attributes:
        side: ``input`` or ``output``.
        name: Its name.
        old: The type it had.
        new: The type it has.
    """

    side: str
    name: str
    old: ir.DataType
    new: ir.DataType


@dataclass
class Widening:
    """What of a model gets another element type.

    Attributes:
        overlay: The types, tensors and attributes that values and nodes get.
        rounds: Nodes that are to round to a type, which is no longer that of their output.
        nodes: All nodes that work on a value with another type.
        blocked: Nodes of functions that work on values of different types in different calls, of
            which one keeps a type that the opset does not have.
        changes: Inputs and outputs of the model.
        wider: Whether these were to get wider types.
    """

    wider: bool = False
    overlay: Overlay = field(default_factory=Overlay)
    rounds: dict[ir.Node, ir.DataType] = field(default_factory=dict)
    nodes: set[ir.Node] = field(default_factory=set)
    blocked: set[ir.Node] = field(default_factory=set)
    changes: list[Change] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.overlay.types or self.overlay.attributes)

    def apply(self) -> None:
        """Give the model the types; a value that has none declared goes on without one."""
        for value, kind in self.overlay.types.items():
            if value.type is not None:
                value.type = kind
        for value, tensor in self.overlay.tensors.items():
            value.const_value = tensor
        for node, attributes in self.overlay.attributes.items():
            node.attributes.update(attributes)

    def value(self, value: ir.Value, kind: ir.TypeProtocol, target: int) -> None:
        """Change the type of a value, and the tensor that it is.

        Args:
            value: Any value of the model.
            kind: Its type, as it was solved.
            target: The opset whose types it may have.
        """
        self.overlay.types[value] = wider_type(kind, target)
        if value.const_value is not None:
            self.overlay.tensors[value] = _cast(value.const_value, target)

    def attribute(self, node: ir.Node, given: ir.Attr, target: int) -> None:
        """Change the type that an attribute names or has.

        Args:
            node: The node.
            given: Its attribute: a type, the number of one, or a tensor.
            target: The opset whose types it may have.
        """
        if given.type == ir.AttributeType.TENSOR:
            new = ir.AttrTensor(given.name, _cast(given.as_tensor(), target))
        elif given.type == ir.AttributeType.TYPE_PROTO:
            held = given.value
            assert isinstance(held, ir.TypeAndShape)
            assert held.type is not None
            wider = ir.TypeAndShape(wider_type(held.type, target), held.shape)
            new = ir.Attr(given.name, given.type, wider)
        else:
            new = ir.AttrInt64(given.name, wider_dtype(ir.DataType(given.as_int()), target).value)
        new.doc_string = given.doc_string
        self.overlay.attributes.setdefault(node, {})[given.name] = new


def _cast(tensor: ir.TensorProtocol, target: int) -> ir.TensorProtocol:
    wide = cast(as_weight(tensor), wider_dtype(tensor.dtype, target))
    wide.name = tensor.name
    return wide


def widen(
    model: ir.Model,
    scopes: Sequence[Scope],
    typing: Callable[[], Typing],
    target: int,
    interface: Interface = "keep",
) -> Widening:
    """Say which values get element types that an opset has, instead of those that it has not.

    Args:
        model: The model; it is not changed.
        scopes: All its graphs.
        typing: Returns its types.
        target: The opset.
        interface: Whether inputs and outputs of the model keep their types or get wider ones.
    """
    found = Widening(interface == "wider")
    absent = absent_types(target)
    if not any(_is_above(scope, target) for scope in scopes) or not _mentions(scopes, absent):
        return found
    types, unclear = _types(scopes, typing(), absent)
    kinds = {**{value: _element(kind) for value, kind in types.items()}, **unclear}
    groups = TypeGroups(model, kinds, unclear)
    if interface == "keep":
        groups.keep((*model.graph.inputs, *model.graph.outputs))
    touching = []
    for scope in scopes:
        if not _is_above(scope, target):
            groups.keep(_values(scope))
        touching += [node for node in scope.graph if groups.add(node)]
    stays = groups.stays()
    found.blocked = {
        node for node in touching if any(v in unclear and v in stays for v in _around(node))
    }
    free = {value: kind for value, kind in types.items() if value not in stays}
    _note_changes(found, model, free, target)
    for value, kind in free.items():
        found.value(value, kind, target)
    found.nodes = {node for node in touching if any(v in free for v in _around(node))}
    _note_rounding(found, touching, free)
    _rename_types(found, scopes, stays, target)
    return found


def _note_rounding(
    found: Widening, nodes: Iterable[ir.Node], free: Mapping[ir.Value, ir.TypeProtocol]
) -> None:
    """Note which nodes make values of a type that has another one now out of other values."""
    for node in nodes:
        if node.domain != "" or node.op_type not in ROUNDING or node.inputs[0] is None:
            continue
        kind = _element(free.get(node.outputs[0]))
        if kind is None or _element(free.get(node.inputs[0])) == kind:
            continue
        if kind != ir.DataType.BFLOAT16 or not _only_computed_with(node.outputs[0], free):
            found.rounds[node] = kind


def _only_computed_with(value: ir.Value, free: Mapping[ir.Value, ir.TypeProtocol]) -> bool:
    """Say whether a value only goes into arithmetic, whose results are no longer rounded either.

    What is stored, compared or cast has to be the rounded value.
    """
    pending, seen = [value], {value}
    while pending:
        each = pending.pop()
        if each.is_graph_output():
            return False
        for node, _ in each.uses():
            if node.domain != "" or holds_graphs(node) or node.op_type in READING:
                return False
            if computes(node):
                continue
            if any(output not in free for output in node.outputs):
                return False
            pending += [output for output in node.outputs if output not in seen]
            seen.update(node.outputs)
    return True


def _is_above(scope: Scope, target: int) -> bool:
    opset = default_opset(scope.opsets)
    return opset is not None and opset > target


def _values(scope: Scope) -> Iterator[ir.Value]:
    yield from scope.graph.inputs
    yield from scope.initializers.values()
    for node in scope.graph:
        yield from node.outputs


def _around(node: ir.Node) -> Iterator[ir.Value]:
    yield from (value for value in node.inputs if value is not None)
    yield from node.outputs


def _mentions(scopes: Sequence[Scope], absent: frozenset[ir.DataType]) -> bool:
    """Say whether anything in a model names one of some types."""
    return any(
        any(value.dtype in absent or _tensor_type(value) in absent for value in _values(scope))
        or any(_named(given) in absent for node in scope.graph for given in _naming(node))
        for scope in scopes
    )


def _tensor_type(value: ir.Value) -> ir.DataType | None:
    return None if value.const_value is None else value.const_value.dtype


def _naming(node: ir.Node) -> list[ir.Attr]:
    """Return the attributes of a node of the default domain that name or have a type."""
    named = node.attributes.data
    if node.domain != "" or _NAMES_A_TYPE.isdisjoint(named):
        return []
    return [named[name] for name in named if name in _NAMES_A_TYPE and not named[name].is_ref()]


def _named(given: ir.Attr) -> ir.DataType | None:
    if given.type == ir.AttributeType.TENSOR:
        return given.as_tensor().dtype
    if given.type == ir.AttributeType.TYPE_PROTO:
        assert isinstance(given.value, ir.TypeAndShape)
        return _element(given.value.type)
    return ir.DataType(given.as_int()) if given.type == ir.AttributeType.INT else None


def _element(kind: ir.TypeProtocol | None) -> ir.DataType | None:
    while isinstance(kind, (ir.SequenceType, ir.OptionalType)):
        kind = kind.elem_type
    return kind.dtype if isinstance(kind, ir.TensorType) else None


def _types(
    scopes: Sequence[Scope], typing: Typing, absent: frozenset[ir.DataType]
) -> tuple[dict[ir.Value, ir.TypeProtocol], dict[ir.Value, ir.DataType | None]]:
    """Return the values of some types, and those that are of one in some calls of a function.

    The second come with the type, None if it is not always the same one.
    """
    types: dict[ir.Value, ir.TypeProtocol] = {}
    for value in (value for scope in scopes for value in _values(scope)):
        tensor = _tensor_type(value)
        kind = value.type if tensor is None else ir.TensorType(tensor)
        kind = typing.type_of(value) if kind is None else kind
        if kind is not None and _element(kind) in absent:
            types[value] = kind
    unclear: dict[ir.Value, ir.DataType | None] = {}
    for frame in typing.frames[1:]:
        for value, text in frame.types.items():
            found = _spelled(text)
            if found in absent and value not in types and typing.text_of(value) is None:
                unclear[value] = found if unclear.get(value, found) == found else None
    return types, unclear


def _spelled(text: str) -> ir.DataType | None:
    while (inner := element(text)) is not None:
        text = inner
    return dtype_of(text)


def _note_changes(
    found: Widening, model: ir.Model, free: Mapping[ir.Value, ir.TypeProtocol], target: int
) -> None:
    sides: Iterable[tuple[str, Sequence[ir.Value]]] = (
        ("input", model.graph.inputs),
        ("output", model.graph.outputs),
    )
    for side, values in sides:
        for value in values:
            kind = _element(free.get(value))
            if kind is not None:
                new = wider_dtype(kind, target)
                found.changes.append(Change(side, value.name or "", kind, new))


def _rename_types(
    found: Widening, scopes: Sequence[Scope], stays: set[ir.Value], target: int
) -> None:
    """Change the attributes that name types, but those of values that stay."""
    absent = absent_types(target)
    for scope in scopes:
        for node in scope.graph if _is_above(scope, target) else ():
            for given in _naming(node):
                own = given.name in NAMES_ITS_TYPE and node.outputs[0] in stays
                if _named(given) in absent and not own:
                    found.nodes.add(node)
                    found.attribute(node, given, target)
