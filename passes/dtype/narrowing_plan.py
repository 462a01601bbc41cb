"""What of a model's int64 can be int32: found on the model as it is, and applied at once."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from vlmpass.ir_tools.graph.constants import constant_of
from vlmpass.ir_tools.graph.edit import add_constant, remove_unused_constant
from vlmpass.ir_tools.graph.names import Names
from vlmpass.ir_tools.graph.walk import Scope, holds_graphs, scopes
from vlmpass.ir_tools.operators import Kind, traits_of
from vlmpass.ir_tools.operators.schema import in_force
from vlmpass.ir_tools.operators.type_texts import tensor as tensor_text
from vlmpass.ir_tools.shapes import facts_of, visit_scope
from vlmpass.ir_tools.shapes.interval import within
from vlmpass.ir_tools.shapes.intervals import Intervals
from vlmpass.ir_tools.types.cast_nodes import Casts

__all__ = ["NarrowingPlan"]

_WIDE, _NARROW = ir.DataType.INT64, ir.DataType.INT32
_WIDE_TEXT, _NARROW_TEXT = tensor_text(_WIDE), tensor_text(_NARROW)
_REASON = "int32 holds every number that comes here"


@dataclass(frozen=True)
class _Tie:
    """What of a node has one type, which is int64 and may be int32.

    Attributes:
        inputs: Positions.
        outputs: Positions.
        reads_places: Whether these are operands that are read as places or sizes alone, that are
            cast, or of which nothing but the shape counts.
    """

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    reads_places: bool


class NarrowingPlan:
    """What of a model's int64 can be int32.

    Args:
        model: In topological order, its shapes inferred; nothing is changed before `apply`.
        bounds: As `Intervals` takes them.
        keep_io: Whether the main graph's inputs and outputs keep their types.
        wanted: Nodes that are to change even if all they make is sizes or places.

    Attributes:
        unproven: The nodes that compute with int64 and stay, each with the reason.
    """

    def __init__(
        self,
        model: ir.Model,
        bounds: Mapping[str, int],
        *,
        keep_io: bool,
        wanted: Collection[ir.Node] = (),
    ) -> None:
        self.model, self.keep_io, self.wanted = model, keep_io, wanted
        self.unproven: dict[ir.Node, str] = {}
        self._scopes = list(scopes(model))
        self._fed: set[ir.Value] = set() if keep_io else self._interface()
        self._ties = {node: _ties(node, scope) for scope in self._scopes for node in scope.graph}
        facts = facts_of(model)
        owners: list[ir.Graph | ir.Function] = [model.graph, *model.functions.values()]
        for owner in owners:
            visit_scope(facts, Scope(owner, owner, 0), lambda node, scope: None)
        for value in self._fed:
            value.type = ir.TensorType(_NARROW)
        try:
            self._intervals = Intervals(model, facts, bounds)
        finally:
            for value in self._fed:
                value.type = ir.TensorType(_WIDE)
        self._chosen = dict(self._choose())
        self._leave_casts()
        changed = (
            node.outputs[place]
            for node, ties in self._chosen.items()
            for tie in ties
            for place in tie.outputs
        )
        self._changed = self._fed | set(changed)

    def _interface(self) -> set[ir.Value]:
        fed = (value for value in self.model.graph.inputs if value.const_value is None)
        return {value for value in fed if value.dtype == _WIDE}

    def _choose(self) -> Iterator[tuple[ir.Node, list[_Tie]]]:
        """Yield the nodes that change, with what of them does; note those that should and stay."""
        sizes = _only_sizes(self._scopes, self._ties)
        for node, ties in self._ties.items():
            computes = [tie for tie in ties if not tie.reads_places]
            if (node in sizes and node not in self.wanted) or not computes:
                continue
            reason = self._why_not(node, computes)
            if reason is None:
                yield node, computes
            else:
                self.unproven[node] = reason

    def _leave_casts(self) -> None:
        """Let what is cast to int64 for nothing but what stays be cast as it is."""
        for node in reversed(list(self._chosen)):
            uses = list(node.outputs[0].uses())
            if node.op_type == "Cast" and not any(self._narrows(*use) for use in uses):
                del self._chosen[node]

    def _narrows(self, user: ir.Node, place: int) -> bool:
        ties = self._chosen.get(user, []) + [
            tie for tie in self._ties.get(user, ()) if tie.reads_places
        ]
        return any(place in tie.inputs for tie in ties)

    def _why_not(self, node: ir.Node, ties: list[_Tie]) -> str | None:
        """Return why int32 does not do for a node; None if it does."""
        interior = self._intervals.interior.get(node)
        if interior is None:
            return f"nothing is said of the numbers that {node.op_type} computes with"
        operands = [node.inputs[place] for tie in ties for place in tie.inputs]
        results = [node.outputs[place] for tie in ties for place in tie.outputs]
        for value in (*operands, *results):
            if value is not None and not within(self._intervals[value], _NARROW):
                return self._no_range(value)
        if not all(within(each, _NARROW) for each in interior):
            return f"int32 does not hold what comes up on the way to '{node.outputs[0].name}'"
        return None

    def _no_range(self, value: ir.Value) -> str:
        """Say which value has no range that int32 holds: the first on the way to one."""
        seen: set[ir.Value] = set()
        while value not in seen:
            seen.add(value)
            node = value.producer()
            before = () if node is None or holds_graphs(node) else node.inputs
            wide = [each for each in before if each is not None and self._is_wide(each)]
            value = wide[0] if wide else value
        part = self._intervals[value]
        if value in self.model.graph.inputs:
            return f"any number may be fed as '{value.name}', which has no range"
        if part is None or (part.low, part.high) == (-(2**63), 2**63 - 1):
            return f"'{value.name}' has no range"
        return f"'{value.name}' may be anything from {part.low} to {part.high}"

    def _is_wide(self, value: ir.Value) -> bool:
        dtype = self._intervals.facts.dtype(value)
        return dtype == _WIDE and not within(self._intervals[value], _NARROW)

    def apply(self) -> bool:
        """Let the model have what was found; return whether that changed anything."""
        if not self._chosen and not self._fed:
            return False
        self._names = Names.of(self.model)
        self._casts = Casts(self._names)
        self._constants: dict[tuple[ir.Value, ir.Graph | ir.Function], ir.Value] = {}
        for value in self._changed:
            value.type = ir.TensorType(_NARROW)
        for node in self._chosen:
            _retype(node)
        for scope in self._scopes:
            for node in list(scope.graph):
                self._serve(node, scope)
            self._give_out(scope)
        return True

    def _serve(self, node: ir.Node, scope: Scope) -> None:
        """Give a node its operands in the types that it takes from now on."""
        free = [tie for tie in self._ties.get(node, ()) if tie.reads_places]
        narrow = {place for tie in self._chosen.get(node, ()) for place in tie.inputs}
        narrow |= {place for tie in free if self._takes(node, tie) for place in tie.inputs}
        for place, value in enumerate(node.inputs):
            if value is None:
                continue
            if place in narrow and value not in self._changed:
                node.replace_input_with(place, self._narrowed(value, node, scope))
                remove_unused_constant(value)
            elif place not in narrow and value in self._changed:
                node.replace_input_with(place, self._casts.to(value, _WIDE_TEXT, _REASON))

    def _takes(self, node: ir.Node, tie: _Tie) -> bool:
        """Whether what a node reads as places is there as int32, all of it."""
        values = [node.inputs[place] for place in tie.inputs]
        held = [value for value in values if value is not None]
        known = all(within(self._intervals[value], _NARROW) for value in held)
        return known and any(value in self._changed for value in held)

    def _narrowed(self, value: ir.Value, node: ir.Node, scope: Scope) -> ir.Value:
        tensor = constant_of(value, self.model.ir_version)
        if tensor is None:
            return self._casts.to(value, _NARROW_TEXT, _REASON)
        key = (value, scope.graph)
        if key not in self._constants:
            small = ir.tensor(np.asarray(tensor.numpy()).astype(np.int32))
            name = self._names.value(f"{value.name}/int32")
            as_node = scope.in_function or self.model.ir_version < 4
            self._constants[key] = add_constant(small, node, name, as_node=as_node)
        return self._constants[key]

    def _give_out(self, scope: Scope) -> None:
        """Let what a graph gives out have the type that it had, or int32 where that is asked."""
        main = scope.graph is self.model.graph
        for place, value in enumerate(scope.graph.outputs):
            if value not in self._changed or (main and not self.keep_io):
                continue
            foreign = value.graph is not scope.graph
            end = scope.graph if foreign and isinstance(scope.graph, ir.Graph) else None
            wide = self._casts.to(value, _WIDE_TEXT, _REASON, end_of=end)
            if main and not wide.is_graph_output() and not value.is_graph_input():
                value.name, wide.name = self._names.value(f"{value.name}/int32"), value.name
                wide.shape = value.shape
            scope.graph.outputs[place] = wide


def _ties(node: ir.Node, scope: Scope) -> list[_Tie]:
    """Return what of a node is int64 by a type parameter that admits int32 too."""
    known = in_force(node.domain, node.op_type, scope.opsets.get(node.domain, 1))
    constant = node.op_type == "Constant"
    if known is None or node.domain not in ("", "ai.onnx") or holds_graphs(node) or constant:
        return []
    by_parameter: dict[str, tuple[list[int], list[int]]] = {}
    for side, values, formal_at in (
        (0, node.inputs, known.input_at),
        (1, node.outputs, known.output_at),
    ):
        for place, value in enumerate(values):
            formal = formal_at(place)
            if value is None or formal is None or value.dtype != _WIDE:
                continue
            if _NARROW_TEXT in known.allowed[formal.parameter]:
                by_parameter.setdefault(formal.parameter, ([], []))[side].append(place)
    return [_tie(node, *places) for places in by_parameter.values()]


def _tie(node: ir.Node, inputs: list[int], outputs: list[int]) -> _Tie:
    traits = traits_of("", node.op_type)
    sizes = () if traits is None else traits.sizes
    any_type = traits is not None and traits.kind in (Kind.CAST, Kind.SHAPE)
    places = not outputs and all(place in sizes or any_type for place in inputs)
    return _Tie(tuple(inputs), tuple(outputs), places)


def _retype(node: ir.Node) -> None:
    """Change what types the results of a node."""
    if node.op_type == "Cast" and node.outputs[0].dtype == _NARROW:
        node.attributes["to"] = ir.AttrInt64("to", _NARROW.value)
    if node.op_type == "ConstantOfShape":
        number = node.attributes["value"].as_tensor().numpy()
        node.attributes["value"] = ir.AttrTensor("value", ir.tensor(number.astype(np.int32)))


def _only_sizes(scopes_: list[Scope], ties: Mapping[ir.Node, list[_Tie]]) -> set[ir.Node]:
    """Return the nodes whose results are nothing but sizes, places and axes of other nodes."""
    found: set[ir.Node] = set()
    given = {value for scope in scopes_ for value in scope.graph.outputs}
    for scope in reversed(scopes_):
        for node in reversed(list(scope.graph)):
            outputs = [value for value in node.outputs if value.uses() or value in given]
            if outputs and all(
                value not in given
                and value.dtype == _WIDE
                and all(_reads_sizes(user, place, found, ties) for user, place in value.uses())
                for value in outputs
            ):
                found.add(node)
    return found


def _reads_sizes(
    user: ir.Node, place: int, found: set[ir.Node], ties: Mapping[ir.Node, list[_Tie]]
) -> bool:
    if user in found:
        return True
    traits = traits_of(user.domain, user.op_type)
    fixed = all(place not in tie.inputs for tie in ties.get(user, ()))
    return fixed and traits is not None and place in traits.sizes
