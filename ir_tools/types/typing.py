"""The types of a model as a value: solve it, ask it, write it back."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import onnx_ir as ir

from vlmpass.ir_tools.errors import Refusal, Refused
from vlmpass.ir_tools.operators.type_texts import dtype_of, parse, spell
from vlmpass.ir_tools.types.conflict import Conflict, conflict
from vlmpass.ir_tools.types.frame import Frame
from vlmpass.ir_tools.types.solver import Solver

__all__ = ["Typing", "apply", "require_well_typed", "retyped", "solve"]


@dataclass(frozen=True)
class Typing:
    """Element types of every value of a model, and the places where they disagree.

    Attributes:
        frames: The main graph's frame first, then one for each distinct call of a function.
    """

    frames: tuple[Frame, ...]

    def text_of(self, value: ir.Value) -> str | None:
        """Return a value's type as the schemas spell it, ``tensor(float)``.

        None where it is unknown, or where calls of a function give it different types.
        """
        return self.texts.get(value)

    def type_of(self, value: ir.Value) -> ir.TypeProtocol | None:
        """Return a value's type as a new object; None as in `text_of`."""
        text = self.texts.get(value)
        return parse(text) if text is not None else None

    def dtype(self, value: ir.Value) -> ir.DataType | None:
        """Return a tensor's element type; None for other types and where it is unknown."""
        text = self.texts.get(value)
        return dtype_of(text) if text is not None else None

    @cached_property
    def conflicts(self) -> tuple[Conflict, ...]:
        """All conflicts, in graph order, each place once."""
        found: dict[tuple[object, ...], Conflict] = {}
        for frame in self.frames:
            for mismatch in frame.mismatches:
                key = (mismatch.kind, mismatch.node, mismatch.variable)
                found.setdefault(key, conflict(frame, mismatch))
        return tuple(found.values())

    @property
    def unknown(self) -> tuple[ir.Node, ...]:
        """Nodes of operators without a schema, typed by their declarations alone."""
        return tuple(dict.fromkeys(node for frame in self.frames for node in frame.unknown))

    @cached_property
    def texts(self) -> Mapping[ir.Value, str]:
        """The type of every value that has one, as the schemas spell it."""
        texts: dict[ir.Value, str] = {}
        for frame in self.frames:
            if texts:
                texts.update((v, text) for v, text in frame.types.items() if v not in texts)
            else:
                texts.update(frame.types)
        for value in self.disagreeing:
            del texts[value]
        return texts

    @cached_property
    def disagreeing(self) -> tuple[ir.Value, ...]:
        """Values inside functions that calls give different types."""
        first: dict[ir.Value, str] = {}
        found: dict[ir.Value, None] = {}
        for frame in self.frames[1:]:
            for value, text in frame.types.items():
                if first.setdefault(value, text) != text:
                    found[value] = None
        return tuple(found)


def solve(model: ir.Model) -> Typing:
    """Solve the element types of every value; the model is not changed.

    Time is linear in nodes; a function's body is solved once per distinct set of argument types.
    """
    solver = Solver(model)
    solver.run()
    return Typing(tuple(solver.frames))


def retyped(old: ir.TypeProtocol | None, text: str) -> ir.TypeProtocol | None:
    """Return a new type object for a text, with the denotation of the one it replaces."""
    new = parse(text)
    if new is not None and old is not None and type(new) is type(old):
        new.denotation = old.denotation
    return new


def apply(model: ir.Model, typing: Typing, keep: Collection[ir.Value] = ()) -> bool:
    """Write solved types into the values of a model; say whether any changed.

    A value whose type is unknown keeps its declaration, except in a function whose calls disagree
    about it: there a declaration would be wrong for some, and goes.

    Args:
        model: The model that was solved.
        typing: Its types.
        keep: Values that stay as they are.
    """
    changed = False
    for value, text in typing.texts.items():
        if spell(value.type) != text and value not in keep:
            value.type, changed = retyped(value.type, text), True
    for value in typing.disagreeing:
        if value.type is not None and value not in keep:
            value.type, changed = None, True
    return changed


def _refusals(conflicts: tuple[Conflict, ...]) -> Iterator[Refusal]:
    for found in conflicts:
        yield Refusal(found.where, found.problem)


def require_well_typed(model: ir.Model, request: str) -> Typing:
    """Solve a model whose types must agree.

    Args:
        model: The model as a pass leaves it.
        request: What was asked, for the message, such as ``unify-dtype to float32``.

    Raises:
        Refused: It has conflicts; the error lists every one.
    """
    typing = solve(model)
    if typing.conflicts:
        raise Refused(request, tuple(_refusals(typing.conflicts)))
    return typing
