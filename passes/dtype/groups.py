"""The places whose types are open when a graph is to be repaired, and what they share.

A group is one type variable of one node: the inputs it takes and the values it types. Open are the
groups in which types disagree, and those that take a value of an open group; everything else keeps
its types. A Cast that feeds an open group is open itself: its target may change.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import onnx_ir as ir

from vlmpass.ir_tools.graph.walk import Scope, scopes
from vlmpass.ir_tools.operators.formal import Schema
from vlmpass.ir_tools.operators.schema import in_force
from vlmpass.ir_tools.operators.type_texts import spell
from vlmpass.ir_tools.types.bodies import STRUCTURAL, Slot, graph_of, ties
from vlmpass.ir_tools.types.carried import typing_attribute
from vlmpass.ir_tools.types.outputs import DECIDED
from vlmpass.ir_tools.types.typing import Typing

__all__ = ["Group", "Groups"]


@dataclass
class Group:
    """One type variable of one node.

    Attributes:
        node: The node.
        variable: The variable, for messages.
        allowed: The types that the operator admits; None for any.
        slots: What is bound to it.
        values: What it types.
        attribute: The attribute that sets it, if it is open to edits.
    """

    node: ir.Node
    variable: str
    allowed: frozenset[str] | None
    slots: list[Slot] = field(default_factory=list)
    values: list[ir.Value] = field(default_factory=list)
    attribute: str | None = None


class Groups:
    """The open groups of a model.

    Attributes:
        open: Open groups, in graph order; those of attributes last.
        owner: For each value of an open group, the index of that group.
        outputs: Outputs of the main graph and of functions, with the type each must have.
    """

    def __init__(self, model: ir.Model, typing: Typing) -> None:
        self.model = model
        self.typing = typing
        self.open: list[Group] = []
        self.owner: dict[ir.Value, int] = {}
        self.outputs: list[tuple[Slot, str]] = list(self._outputs())
        self._opsets = {graph_of(scope): scope.opsets for scope in scopes(model)}
        everything = [(scope, list(self._groups(scope))) for scope in scopes(model)]
        opened: dict[int, Group] = {}
        values: set[ir.Value] = set()
        growing = True
        while growing:
            growing = False
            for _, groups in everything:
                for group in groups:
                    if id(group) not in opened and self._is_open(group, values):
                        opened[id(group)] = group
                        values.update(group.values)
                        growing = True
        for _, groups in everything:
            self.open += [group for group in groups if id(group) in opened]
        for index, group in enumerate(self.open):
            self.owner.update(dict.fromkeys(group.values, index))
        self._open_attributes()

    def _outputs(self) -> Iterator[tuple[Slot, str]]:
        for index, value in enumerate(self.model.graph.outputs):
            text = spell(value.type) or self.typing.text_of(value)
            if text is not None:
                yield Slot(value, None, index, self.model.graph), text
        for function in self.model.functions.values():
            for index, value in enumerate(function.outputs):
                text = self.typing.text_of(value)
                if text is not None:
                    yield Slot(value, None, index, function.graph), text

    def _is_open(self, group: Group, values: set[ir.Value]) -> bool:
        texts = {self.typing.text_of(slot.value) for slot in group.slots} - {None}
        if any(slot.value in values for slot in group.slots) or len(texts) > 1:
            return True
        return group.allowed is not None and not texts <= group.allowed

    def _groups(self, scope: Scope) -> Iterator[Group]:
        graph = graph_of(scope)
        for node in scope.graph:
            if node.op_identifier() in self.model.functions:
                continue
            operator = (node.domain, node.op_type)
            if operator in STRUCTURAL:
                # the elements of a sequence and the sequence are of two types
                for tie in ties(node, scope) if node.op_type != "SequenceMap" else ():
                    yield Group(node, tie.name, tie.allowed, list(tie.slots), list(tie.values))
            else:
                known = in_force(*operator, scope.opsets.get(node.domain, 1))
                if known is not None:
                    yield from self._of_node(node, known, graph)

    @staticmethod
    def _of_node(node: ir.Node, known: Schema, graph: ir.Graph) -> Iterator[Group]:
        groups: dict[str, Group] = {}
        for index, value in enumerate(node.inputs):
            formal = known.input_at(index)
            if value is None or formal is None:
                continue
            name = formal.parameter if formal.homogeneous else f"{formal.parameter} {index}"
            allowed = known.allowed[formal.parameter]
            group = groups.setdefault(name, Group(node, formal.parameter, allowed))
            group.slots.append(Slot(value, node, index, graph))
        decided = DECIDED.get((node.domain, node.op_type), {})
        for index, value in enumerate(node.outputs):
            formal = known.output_at(index)
            if formal is not None and index not in decided and formal.parameter in groups:
                groups[formal.parameter].values.append(value)
        yield from groups.values()

    def _open_attributes(self) -> None:
        """Open the attributes that type what open groups take, and wrongly typed outputs."""
        sources = [slot.value for group in self.open for slot in group.slots]
        sources += [
            slot.value for slot, text in self.outputs if self.typing.text_of(slot.value) != text
        ]
        sources += self._not_admitted()
        for value in dict.fromkeys(sources):
            node = value.producer()
            if value in self.owner or node is None or value is not node.outputs[0]:
                continue
            name = typing_attribute(node)
            attribute = node.attributes.get(name) if name is not None else None
            if name is None or attribute is None or attribute.is_ref():
                continue
            if node.op_type == "BitCast":
                continue
            self.owner[value] = len(self.open)
            self.open.append(Group(node, name, self._target(node), [], [value], name))

    def _not_admitted(self) -> Iterator[ir.Value]:
        """Yield the outputs whose types their operators do not admit."""
        for frame in self.typing.frames:
            for each in frame.mismatches:
                if each.kind == "unsupported" and each.uses[0].index is None:
                    yield each.uses[0].value

    def _target(self, node: ir.Node) -> frozenset[str] | None:
        assert node.graph is not None
        opsets = self._opsets[node.graph]
        known = in_force(node.domain, node.op_type, opsets.get(node.domain, 1))
        formal = known.output_at(0) if known is not None else None
        return known.allowed[formal.parameter] if known is not None and formal is not None else None
