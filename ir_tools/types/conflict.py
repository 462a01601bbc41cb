"""Type conflicts as people read them: the node, the variable, and where each type came from."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from vlmpass.ir_tools.operators.type_texts import parse
from vlmpass.ir_tools.types.frame import Frame, Mismatch, Use

__all__ = ["Binding", "Conflict", "conflict", "label"]

_CHAIN_LIMIT = 8


@dataclass(frozen=True)
class Binding:
    """One side of a conflict.

    Attributes:
        slot: What binds the type: ``input 1 (B)``, ``then_branch``, ``declared`` …
        value: The value that has the type.
        type: The type; None for a map, which onnx_ir cannot say.
        text: The type as the schemas spell it, ``tensor(float)``.
        chain: Where the type came from, nearest first: nodes it passed through, then the
            initializer, graph input, constant or Cast that set it.
        index: Position among the node's inputs; None if this is no input.
    """

    slot: str
    value: ir.Value
    type: ir.TypeProtocol | None
    text: str
    chain: tuple[str, ...]
    index: int | None

    def __str__(self) -> str:
        return f"{self.text} by {self.slot} '{self.value.name}', from {' <- '.join(self.chain)}"


@dataclass(frozen=True)
class Conflict:
    """A place where types disagree.

    Attributes:
        kind: ``mixed`` (one type variable, several types), ``unsupported`` (the operator does not
            admit the type), ``declared`` (a value declares another type than it has),
            ``branches`` (the branches of an If differ) or ``carried`` (a loop changes the type).
        node: The node; None where a graph input or initializer declares a wrong type.
        variable: The type variable of the schema, or the value's name.
        bindings: What disagrees.
        allowed: The types that the operator admits, for ``unsupported``; sorted.
        scope: The function it lies in, or an empty string.
    """

    kind: str
    node: ir.Node | None
    variable: str
    bindings: tuple[Binding, ...]
    allowed: tuple[str, ...] = ()
    scope: str = ""

    @property
    def where(self) -> str:
        """Name and operator of the node, or of the value, such as ``/l.0/Add (Add)``."""
        if self.node is None:
            return f"value '{self.bindings[0].value.name}'"
        return label(self.node) + (f" in function {self.scope}" if self.scope else "")

    @property
    def problem(self) -> str:
        """What is wrong, without the node."""
        sides = "; ".join(str(binding) for binding in self.bindings)
        if self.kind == "mixed":
            return f"type variable {self.variable} is bound to different types: {sides}"
        if self.kind == "unsupported":
            return f"{self.variable} does not admit {sides}; it admits {', '.join(self.allowed)}"
        if self.kind == "declared":
            return f"'{self.variable}' is declared with another type than it has: {sides}"
        if self.kind == "branches":
            return f"the branches give '{self.variable}' different types: {sides}"
        return f"the loop changes the type of '{self.variable}': {sides}"

    def __str__(self) -> str:
        return f"{self.where}: {self.problem}"


def label(node: ir.Node) -> str:
    """Return a node's name and operator; its first output stands in for a missing name."""
    name = node.name or (node.outputs[0].name if node.outputs else None) or "unnamed"
    operator = f"{node.domain}::{node.op_type}" if node.domain else node.op_type
    return f"{name} ({operator})"


def _root(value: ir.Value) -> str:
    producer = value.producer()
    if producer is not None:
        return label(producer)
    if value.is_initializer():
        return f"initializer {value.name}"
    return f"input {value.name}"


def _chain(frame: Frame, value: ir.Value) -> tuple[str, ...]:
    steps = [_root(value)]
    seen = {value}
    while (origin := frame.origin.get(value)) is not None and origin not in seen:
        seen.add(origin)
        value = origin
        step = _root(value)
        if step != steps[-1]:
            steps.append(step)
    if len(steps) > _CHAIN_LIMIT:
        steps[_CHAIN_LIMIT - 2 : -1] = [f"{len(steps) - _CHAIN_LIMIT + 1} more nodes"]
    return tuple(steps)


def _binding(frame: Frame, use: Use) -> Binding:
    chain = ("its declaration",) if use.slot == "declared" else _chain(frame, use.value)
    return Binding(use.slot, use.value, parse(use.type), use.type, chain, use.index)


def conflict(frame: Frame, mismatch: Mismatch) -> Conflict:
    """Return a mismatch of a frame with all that people want to know."""
    owner = frame.owner
    return Conflict(
        mismatch.kind,
        mismatch.node,
        mismatch.variable,
        tuple(_binding(frame, use) for use in mismatch.uses),
        tuple(sorted(mismatch.allowed)),
        f"{owner.domain}::{owner.name}" if isinstance(owner, ir.Function) else "",
    )
