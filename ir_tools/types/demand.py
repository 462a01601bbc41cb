"""What type every value will have after some types give way to others, and what its users want.

The plan behind every change of types: a node either changes with its values or keeps the types it
has; where a schema does not admit the new type, the old one stays for that type variable alone.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import onnx_ir as ir

from vlmpass.ir_tools.graph.edit import OutputPlaces
from vlmpass.ir_tools.graph.walk import Scope, left_out_at_calls, scopes, subgraphs
from vlmpass.ir_tools.operators.formal import Schema
from vlmpass.ir_tools.operators.schema import in_force
from vlmpass.ir_tools.operators.type_texts import dtype_of, with_dtypes
from vlmpass.ir_tools.types.bodies import STRUCTURAL, Slot, graph_of, ties
from vlmpass.ir_tools.types.ends import wide_ends
from vlmpass.ir_tools.types.outputs import DECIDED
from vlmpass.ir_tools.types.typing import Typing

__all__ = ["Demand", "Use"]

_CAST, _CAST_LIKE = ("", "Cast"), ("", "CastLike")
# A variable that types one input alone, and must fit another all the same.
_TIED = frozenset({("", "Attention"), ("", "RMSNormalization"), ("", "SequenceInsert")})


@dataclass(frozen=True)
class Use:
    """A place that wants a value in a type.

    Attributes:
        node: The node; None for an output of `graph`.
        index: Position among the node's inputs or the graph's outputs.
        graph: The graph it lies in.
        want: The type's text.
    """

    node: ir.Node | None
    index: int
    graph: ir.Graph
    want: str


@dataclass
class Demand:
    """Types to be, from a typing of the model as it is.

    Attributes:
        model: The model.
        typing: Its types as they are.
        mapping: The types that give way, and to which.
        kept: Nodes that keep the types they have, calls and subgraph operators excepted. Added to
            them are Casts, and nodes that compute from integers and constants alone, whose values
            only such nodes use (a Resize's scales, say).
        keep_io: Whether the main graph's inputs and outputs keep their types.
        wide: Values that keep their types where they enter or leave a function, too.
        have: For every value the type to be; values of unknown type are missing.
    """

    model: ir.Model
    typing: Typing
    mapping: Mapping[ir.DataType, ir.DataType]
    kept: set[ir.Node]
    keep_io: bool
    wide: frozenset[ir.Value] = frozenset()
    have: dict[ir.Value, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._signatures: dict[ir.Node, Schema | None] = {}
        self._places = OutputPlaces()
        self._scopes = list(scopes(self.model))
        self.kept = {node for node in self.kept if not self._is_shell(node)}
        self._held_values: set[ir.Value] = set()
        self._held_places: set[tuple[ir.Node | ir.Graph, int]] = set()
        self._hold_bodies()
        self.left_out = left_out_at_calls(self.model)
        wide = self.wide | {value for value in self.left_out if self._is_wanted_wide(value)}
        for end in wide_ends(self.model, wide):
            self._hold(end.values, end.slots)
        self._keep_side_calculations()
        for scope in self._scopes:
            self._decide(scope)
        self._decide_constants()

    def mapped(self, text: str) -> str:
        """Return a type with the element types that give way replaced."""
        return with_dtypes(text, self.mapping)

    def signature(self, node: ir.Node, scope: Scope) -> Schema | None:
        """Return a node's signature; None for functions, subgraph operators and unknown ones."""
        if node not in self._signatures:
            operator = (node.domain, node.op_type)
            version = scope.opsets.get(node.domain, 1)
            shell = self._is_shell(node)
            self._signatures[node] = None if shell else in_force(*operator, version)
        return self._signatures[node]

    def _is_shell(self, node: ir.Node) -> bool:
        """Whether a node is what its subgraphs or its function make of it."""
        structural = (node.domain, node.op_type) in STRUCTURAL
        return structural or node.op_identifier() in self.model.functions

    def _hold_bodies(self) -> None:
        """Let what crosses into or out of a body keep its type where the node admits no other."""
        for scope in self._scopes:
            for tie in (tie for node in scope.graph for tie in ties(node, scope)):
                text = self.typing.text_of(tie.outside)
                if text is not None and self.mapped(text) not in tie.allowed:
                    self._hold(tie.values, tie.slots)

    def _is_wanted_wide(self, formal: ir.Value) -> bool:
        """Whether all that takes an input of a function takes it in the type that it has.

        Where a call leaves it out no Cast can take it.
        """
        text = self.typing.text_of(formal)
        owners = {graph_of(scope): scope for scope in self._scopes}
        return bool(formal.uses()) and all(
            user.graph is not None
            and self._fixed_want(user, index, formal, owners[user.graph]) == text
            for user, index in formal.uses()
        )

    def _hold(self, values: Iterable[ir.Value], slots: Iterable[Slot]) -> None:
        self._held_values.update(values)
        self._held_places.update((slot.node or slot.graph, slot.index) for slot in slots)

    def uses(self) -> Iterator[tuple[ir.Value, Use]]:
        """Yield every use of a value of known type with what it wants."""
        for scope in self._scopes:
            graph = graph_of(scope)
            for node in scope.graph:
                for index, value in enumerate(node.inputs):
                    if value is not None and value in self.have:
                        want = self._want(node, index, value, scope)
                        yield value, Use(node, index, graph, want)
            for index, value in enumerate(scope.graph.outputs):
                text = self.typing.text_of(value)
                if text is not None and value in self.have:
                    want = text if self._keeps(graph, index) else self.mapped(text)
                    yield value, Use(None, index, graph, want)

    def _keeps(self, graph: ir.Graph, index: int) -> bool:
        """Whether an output of a graph keeps its type."""
        interface = self.keep_io and graph is self.model.graph
        return interface or (graph, index) in self._held_places

    def _want(self, node: ir.Node, index: int, value: ir.Value, scope: Scope) -> str:
        """Return the type that an input is to have."""
        fixed = self._fixed_want(node, index, value, scope)
        if fixed is not None:
            return fixed
        known = self.signature(node, scope)
        formal = known.input_at(index) if known is not None else None
        have = self.have[value]
        if known is None or formal is None or have in known.allowed[formal.parameter]:
            return have
        return self.typing.text_of(value) or have

    def _fixed_want(self, node: ir.Node, index: int, value: ir.Value, scope: Scope) -> str | None:
        """Return what an input must have whatever its value has; None if it takes any type."""
        text = self.typing.text_of(value)
        if index == 0 and self._spells(node):
            return text
        if (node.domain, node.op_type) == _CAST:
            return None
        if text is None or node in self.kept or (node, index) in self._held_places:
            return text
        known = self.signature(node, scope)
        formal = known.input_at(index) if known is not None else None
        new = self.mapped(text)
        if known is None or formal is None:
            return new
        if new not in known.allowed[formal.parameter]:
            return text
        return None if self._takes_any(node, known, formal.parameter) else new

    def _spells(self, node: ir.Node) -> bool:
        """Whether a node writes numbers as text, with the digits of the type that they are in."""
        casts = (node.domain, node.op_type) in (_CAST, _CAST_LIKE)
        return casts and self.typing.text_of(node.outputs[0]) == "tensor(string)"

    @staticmethod
    def _takes_any(node: ir.Node, known: Schema, variable: str) -> bool:
        """Whether a variable types one input and nothing else of the node."""
        operator = (node.domain, node.op_type)
        if operator in DECIDED or operator in _TIED:
            return False
        inputs = sum(
            value is not None
            and (formal := known.input_at(i)) is not None
            and formal.parameter == variable
            for i, value in enumerate(node.inputs)
        )
        outputs = sum(
            (formal := known.output_at(i)) is not None and formal.parameter == variable
            for i in range(len(node.outputs))
        )
        return inputs == 1 and outputs == 0

    def _decide(self, scope: Scope) -> None:
        """Decide the types of a scope's inputs and node outputs."""
        keeps = self.keep_io and scope.graph is self.model.graph
        for value in scope.graph.inputs:
            text = self.typing.text_of(value)
            if text is not None:
                keep = keeps or value in self._held_values
                self.have[value] = text if keep else self.mapped(text)
        for node in scope.graph:
            known = self.signature(node, scope)
            for index, value in enumerate(node.outputs):
                text = self.typing.text_of(value)
                if text is None:
                    continue
                formal = known.output_at(index) if known is not None else None
                held = node in self.kept or value in self._held_values
                new = text if held else self.mapped(text)
                if known is not None and formal is not None:
                    new = new if new in known.allowed[formal.parameter] else text
                self.have[value] = new

    def _decide_constants(self) -> None:
        """Let initializers have what their users want; where users differ, the new type."""
        wants: dict[ir.Value, set[str]] = {
            value: set()
            for scope in self._scopes
            for value in scope.initializers.values()
            if value not in self.have and self.typing.text_of(value) is not None
        }
        for scope in self._scopes:
            for node in scope.graph:
                for index, value in enumerate(node.inputs):
                    if value is None or value not in wants:
                        continue
                    want = self._fixed_want(node, index, value, scope)
                    if want is not None:
                        wants[value].add(want)
        for value, wanted in wants.items():
            text = self.typing.text_of(value)
            assert text is not None
            output = value.is_graph_output()
            self.have[value] = text if wanted == {text} and not output else self.mapped(text)

    def _keep_side_calculations(self) -> None:
        """Keep what computes from integers and constants for nothing but kept inputs."""
        for scope in self._scopes:
            changing = self._exact_sources(scope)
            for node in reversed(list(scope.graph)):
                if node in changing and all(self._stays(value, scope) for value in node.outputs):
                    self.kept.add(node)

    def _exact_sources(self, scope: Scope) -> Collection[ir.Node]:
        """Return changing nodes that compute from integers and constants alone, and all Casts."""
        exact: set[ir.Node] = set()
        casts: set[ir.Node] = set()
        for node in scope.graph:
            texts = [self.typing.text_of(value) for value in node.outputs]
            if node in self.kept or not any(t is not None and self.mapped(t) != t for t in texts):
                continue
            if node.attributes and any(True for _ in subgraphs(node)):
                continue
            sourced = bool(node.inputs) or node.op_type == "Constant"
            if sourced and all(self._is_exact(value, exact) for value in node.inputs):
                exact.add(node)
            elif (node.domain, node.op_type) == _CAST:
                casts.add(node)
        return exact | casts

    def _is_exact(self, value: ir.Value | None, exact: Collection[ir.Node]) -> bool:
        if value is None or value.is_initializer() or value.producer() in exact:
            return True
        text = self.typing.text_of(value)
        dtype = dtype_of(text) if text is not None else None
        return dtype is not None and not dtype.is_floating_point()

    def _stays(self, value: ir.Value, scope: Scope) -> bool:
        """Whether every use of a value wants the type it has now."""
        text = self.typing.text_of(value)
        if text is None or self.mapped(text) == text:
            return True
        if not value.uses() and not value.is_graph_output():
            return False
        given = self._places.of(value, scope.graph) if value.is_graph_output() else []
        if value.is_graph_output() and not given:
            return False
        if not all(self._keeps(graph_of(scope), index) for index in given):
            return False
        return all(
            user.graph is not None and self._fixed_want(user, index, value, scope) == text
            for user, index in value.uses()
        )
