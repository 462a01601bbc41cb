"""Builds, off the graph, what stands for a node at another opset.

A node is led along the steps from its since-version to the one in force at the target. What an
adapter builds is led further in the same way, until every new node is one the target has, with
element types the target admits. The nodes of the model are seen through a view, so that nothing
is touched before the caller splices the result.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import TypeAlias

import onnx_ir as ir

from vlmpass.ir_tools.graph.edit import replace_value
from vlmpass.ir_tools.graph.effects import EXACT, NumberChanges
from vlmpass.ir_tools.graph.names import Names
from vlmpass.ir_tools.graph.tape import Tape, splice
from vlmpass.ir_tools.graph.walk import Scope, subgraphs
from vlmpass.ir_tools.operators.schema import Schema, history, in_force, schema, since
from vlmpass.rewriter_rules.opset.build import spell_constants
from vlmpass.rewriter_rules.opset.element_types.absent import refuse_absent
from vlmpass.rewriter_rules.opset.element_types.bridge import bridge, misfits
from vlmpass.rewriter_rules.opset.element_types.narrow import (
    ROUNDS,
    dequantized,
    reads_wide,
    round_to,
)
from vlmpass.rewriter_rules.opset.element_types.widen import Widening
from vlmpass.rewriter_rules.opset.queries import WANTED, bind_types, used
from vlmpass.rewriter_rules.opset.table import (
    UNCHANGED,
    CannotConvert,
    Entry,
    Step,
    entry,
    is_same,
    steps_between,
    why_unspelled,
)
from vlmpass.rewriter_rules.opset.view import SeenNode

__all__ = ["Built", "Conversion", "Route", "ill_formed", "route"]

_Given: TypeAlias = tuple[str, ir.AttributeType]
"""The name and the type of an attribute."""

_SPELLED_AT = 13
"""The oldest opset at which rounding is spelled; it is led down from there."""


@dataclass(frozen=True)
class Route:
    """How an operator at one opset gets to another.

    Attributes:
        entries: Adapters on the way, in order, up to a gap.
        version: Since-version at the target; None if the operator does not exist there.
        gap: The first step that nothing covers, if any.
        narrows: Whether the target admits fewer types.
    """

    entries: tuple[Entry, ...]
    version: int | None
    gap: Step | None = None
    narrows: bool = False


@cache
def route(operator: str, at: int, to: int) -> Route:
    """Return the route of an operator that exists at the opset it starts from.

    Args:
        operator: Of the default domain.
        at: The opset that its nodes are at.
        to: The opset that they go to.
    """
    source = _meant(operator, at)
    assert source is not None
    target = since(operator, to)
    steps = steps_between(operator, source, to)
    gap = next((step for step in steps if entry(step) is None and not is_same(step)), None)
    found = [entry(step) for step in (steps if gap is None else steps[: steps.index(gap)])]
    narrows = target is not None and _narrows(schema(operator, source), schema(operator, target))
    return Route(tuple(each for each in found if each is not None), target, gap, narrows)


def _narrows(source: Schema, target: Schema) -> bool:
    pairs = [
        *zip(source.inputs, target.inputs, strict=False),
        *zip(source.outputs, target.outputs, strict=False),
    ]
    if any(not a.types <= b.types for a, b in pairs):
        return True
    merged: dict[str, str] = {}
    return any(merged.setdefault(b.parameter, a.parameter) != a.parameter for a, b in pairs)


def _meant(operator: str, opset: int) -> int | None:
    """Return the since-version of an operator at an opset, or where it is retired, the last before.

    Exporters keep writing what is retired; it means what it meant. What ONNX Runtime has before the
    standard means what it came to mean there.
    """
    version = since(operator, opset)
    if version is None and in_force("", operator, opset) is not None:
        return history(operator)[0]
    earlier = history(operator)[: history(operator).index(version)] if version else ()
    if version is None or not earlier or not schema(operator, version).deprecated:
        return version
    return earlier[-1]


@cache
def _shape_of_use(
    operator: str,
    opset: int,
    present: tuple[bool, ...],
    outputs: int,
    attributes: tuple[_Given, ...],
) -> str | None:
    """Return what is wrong with a use of an operator, None if nothing is."""
    version = _meant(operator, opset)
    if version is None:
        first = history(operator)[0]
        return f"{operator} does not exist before opset {first}, and opset {opset} is imported"
    found = schema(operator, version)
    where = f"{operator}-{version}"
    if not found.min_inputs <= len(present) <= found.max_inputs or outputs > found.max_outputs:
        return f"{where} does not take {len(present)} inputs and give {outputs} outputs"
    for index, there in enumerate(present):
        if not there and not found.input(index).optional and not found.input(index).variadic:
            return f"{where} needs its input {found.input(index).name}"
    for name, kind in attributes:
        if name not in found.attributes:
            return f"{where} has no attribute {name}"
        if kind != found.attributes[name]:
            said = found.attributes[name].name
            return f"the attribute {name} of {where} is of type {said}, not {kind.name}"
    missing = sorted(found.required - {name for name, _ in attributes})
    return f"{where} needs its attribute {missing[0]}" if missing else None


def ill_formed(node: ir.Node, opset: int) -> str | None:
    """Say what contradicts the operator's schema in a node of the default domain.

    Arguments and attributes are looked at, not element types; None if all is well.
    """
    present = tuple(value is not None for value in node.inputs)
    outputs = len(node.outputs)
    attributes = tuple((name, given.type) for name, given in node.attributes.items())
    return _shape_of_use(node.op_type, opset, present, outputs, attributes)


@dataclass
class Built:
    """What stands for a node: the new nodes on a tape, and one value for each output.

    Attributes:
        tape: The nodes.
        outputs: The values; None for one that nothing uses.
        changes: What differs in numbers from what the node gives.
    """

    tape: Tape
    outputs: list[ir.Value | None]
    changes: NumberChanges = EXACT


class Conversion:
    """Leads the nodes of one graph or function, subgraphs included, to one opset.

    Args:
        names: Where fresh names come from.
        scope: The graph or function.
        source: Opset its nodes are valid at.
        target: Opset they are led to.
        own: Identities of the graphs that belong to the model, whose nodes the caller walks.
        main: The model's graph.
        widening: What has another element type at the target.
    """

    def __init__(
        self,
        names: Names,
        scope: Scope,
        source: int,
        target: int,
        own: Container[int],
        main: ir.Graph,
        widening: Widening,
    ) -> None:
        self._names = names
        self._imports = {key: value for key, value in scope.opsets.items() if key != "ai.onnx"}
        self.source = source
        self.target = target
        self._own = own
        self._main = main
        self._in_function = scope.in_function
        self._widening = widening

    def touches(self, operator: str) -> bool:
        """Say whether nodes of an operator need a closer look at all."""
        found = route(operator, self.source, self.target)
        return bool(found.entries or found.gap or found.narrows or found.version is None)

    def asks(self, operator: str) -> bool:
        """Say whether leading an operator takes types and shapes that the model may lack."""
        found = route(operator, self.source, self.target)
        down = self.target < self.source
        return down or found.narrows or any(each.asks for each in found.entries)

    def build(self, node: SeenNode) -> Built | None:
        """Build what stands for a node of the model; None if it stays as it is.

        Raises:
            CannotConvert: It cannot be converted.
        """
        if self.target < self.source:
            self._refuse_types(node)
        built = self._around(node) or self._lead(node, self.source)
        if built is not None:
            self._finish(node, built)
        return built

    def _refuse_types(self, node: SeenNode) -> None:
        refuse_absent(node, self.target, self._main, wider=self._widening.wider)
        if node.original in self._widening.blocked:
            raise CannotConvert(
                f"it works on values of other types in other calls of its function, and opset"
                f" {self.target} does not have one of them",
                "run inline-functions first",
            )

    def _around(self, node: SeenNode) -> Built | None:
        """Build what makes or reads values of a type that the target does not have, if it does."""
        kind = self._widening.rounds.get(node.original)
        if kind is None and not (self._has_wider(node) and reads_wide(node, self.target)):
            return None
        tape = self._tape(node, max(self.target, _SPELLED_AT))
        if kind is None:
            output, rule, changes = dequantized(tape, node), "dequantize-wide", EXACT
            reason = "what it reads is carried in a wider type"
        else:
            output, rule = round_to(tape, node, kind, self.target), "round-to-type"
            changes = ROUNDS
            reason = f"opset {self.target} has no {kind.name.lower()}, so its values are computed"
        built = self._settle(node, tape, [output], rule)
        for new in built.tape.nodes:
            new.metadata_props["vlmpass.reason"] = reason
        return replace(built, changes=changes)

    def _has_wider(self, node: SeenNode) -> bool:
        return node.original in self._widening.nodes

    def _tape(self, node: ir.Node, opset: int) -> Tape:
        return Tape(self._names, {**self._imports, "": opset}, node.name or node.op_type)

    def _lead(self, node: ir.Node, at: int) -> Built | None:
        if node.domain != "" or not history(node.op_type):
            return None
        found = route(node.op_type, at, self.target)
        for each in found.entries:
            tape = self._tape(node, each.opset)
            try:
                outputs = each.run(tape, node)
            except CannotConvert as error:
                raise error.at(each.opset + 1) from None
            if outputs is not UNCHANGED:
                listed = [outputs] if isinstance(outputs, ir.Value) else outputs
                return self._settle(node, tape, listed, each.name)
        if found.gap is not None:
            raise CannotConvert(*_why_not(found.gap))
        assert found.version is not None, node.op_type
        if isinstance(node, SeenNode) and not found.narrows and not self._has_wider(node):
            return None
        return self._admit(node, schema(node.op_type, found.version))

    def _admit(self, node: ir.Node, found: Schema) -> Built | None:
        if not misfits(node, found):
            return None
        tape = self._tape(node, self.target)
        try:
            outputs = bridge(tape, node, found)
        except CannotConvert as error:
            raise error.at(_admitting(node, found.version)) from None
        return self._settle(node, tape, outputs, "bridge-types")

    def _settle(
        self, node: ir.Node, tape: Tape, outputs: Sequence[ir.Value | None], rule: str
    ) -> Built:
        """Lead what an adapter built on to the target."""
        results, opset = list(outputs), tape.opsets[""]
        made = {output for new in tape.nodes for output in new.outputs}
        wanted = [v for i, v in enumerate(results) if v is not None and used(node, i)]
        for each in made.intersection(wanted):
            each.meta[WANTED] = True
        settled = self._tape(node, self.target)
        settled.constants.extend(tape.constants)
        for new in tape.nodes:
            version = since(new.op_type, opset) if new.domain == "" else None
            if version is not None:
                assert ill_formed(new, opset) is None, (rule, ill_formed(new, opset))
                bind_types(new, schema(new.op_type, version))
            for output in new.outputs:
                if output.type is None:
                    output.shape = None
            self._settle_subgraphs(new, opset)
            deeper = self._lead(new, opset)
            if deeper is None:
                new.metadata_props.setdefault("vlmpass.rule", rule)
                settled.nodes.append(new)
                continue
            settled.nodes.extend(deeper.tape.nodes)
            settled.constants.extend(deeper.tape.constants)
            for old, value in zip(new.outputs, deeper.outputs, strict=False):
                if value is not None:
                    replace_value(old, value, fresh=False)
                    results = [value if result is old else result for result in results]
            for index in range(len(new.inputs)):
                new.replace_input_with(index, None)  # else it would count among the users
        for each in made:
            each.meta.pop(WANTED, None)
        return Built(settled, results)

    def _settle_subgraphs(self, node: ir.Node, opset: int) -> None:
        for graph in subgraphs(node):
            if id(graph) in self._own:
                continue
            for inner in list(graph):
                self._settle_subgraphs(inner, opset)
                built = self._lead(inner, opset)
                if built is not None:
                    pairs = _pairs(inner, built)
                    splice(built.tape, [inner], pairs, in_function=self._in_function)

    def _finish(self, node: SeenNode, built: Built) -> None:
        """Check that every used output has its value; let the node's heir keep its name."""
        if self._in_function:
            built.outputs = spell_constants(built.tape, built.outputs, self.target)
        missing = node.outputs[len(built.outputs) :]
        absent = [o for o, n in zip(node.outputs, built.outputs, strict=False) if n is None]
        for output in (*missing, *absent):
            if WANTED in output.meta:
                raise CannotConvert(
                    f"its output {output.name} does not exist at opset {self.target}"
                )
        heir = built.outputs[0].producer() if built.outputs and built.outputs[0] else None
        if heir is None or (heir.domain, heir.op_type) != (node.domain, node.op_type):
            return
        if heir in built.tape.nodes:
            heir.name = node.name
            heir.doc_string = node.doc_string
            heir.device_configurations = node.original.device_configurations


def _admitting(node: ir.Node, version: int) -> int:
    """Return the first since-version above one that admits the types of a node."""
    later = [each for each in history(node.op_type) if each > version]
    fitting = (each for each in later if not misfits(node, schema(node.op_type, each)))
    return next(fitting, later[-1] if later else version)


def _why_not(step: Step) -> tuple[str, str]:
    """Return reason and remedy for a step that no adapter covers."""
    operator, source, target = step
    reason = why_unspelled(step)
    if reason is not None:
        return reason, f"choose opset {source} or higher"
    where = f"from version {source} to {target}" if target else f"below opset {source}"
    return f"no conversion of {operator} {where} is known", "choose another opset"


def _pairs(node: ir.Node, built: Built) -> list[tuple[ir.Value, ir.Value]]:
    return [(o, n) for o, n in zip(node.outputs, built.outputs, strict=False) if n is not None]
