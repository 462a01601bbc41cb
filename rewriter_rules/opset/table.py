"""The table of opset steps: what changes an operator from one since-version to the next.

A step is (operator, from since-version, to since-version), upwards or downwards; its entry is a
small function, or membership in the hand-checked SAME set. A downward step to None leaves the
operator's first version: the operator is expanded into what older opsets have.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

import onnx_ir as ir

from vlmpass.ir_tools.graph.tape import Tape
from vlmpass.ir_tools.operators.schema import history

__all__ = [
    "HIGHER",
    "UNCHANGED",
    "Adapter",
    "CannotConvert",
    "Entry",
    "Outputs",
    "Step",
    "adapter",
    "entries",
    "entry",
    "expansion",
    "is_same",
    "same",
    "same_steps",
    "steps_between",
    "unspelled",
    "why_unspelled",
]

Step: TypeAlias = tuple[str, int, int | None]
Outputs: TypeAlias = "ir.Value | Sequence[ir.Value | None]"
Adapter = Callable[[Tape, ir.Node], Outputs]

HIGHER = "choose opset {opset} or higher"
"""A remedy that names the version which the step leads from."""

UNCHANGED: Sequence[ir.Value | None] = ()
"""What an adapter returns for a node that means the same at the other version as it stands."""


class CannotConvert(Exception):
    """Raised inside an adapter: this node cannot be converted; never leaves this package.

    Args:
        reason: Why it cannot be done, without a full stop.
        remedy: What the user can do, in the imperative; ``{opset}`` in it is the opset that the
            step leads down from.
    """

    def __init__(self, reason: str, remedy: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.remedy = remedy

    def at(self, opset: int) -> CannotConvert:
        """Return the error with the opset that its remedy speaks of."""
        return CannotConvert(self.reason, self.remedy.replace("{opset}", str(opset)))


@dataclass(frozen=True)
class Entry:
    """One adapter of the table.

    Attributes:
        run: Builds on the tape what stands for the node and returns its outputs.
        name: The function's name, written to the new nodes as ``vlmpass.rule``.
        summary: First line of its docstring, the formula, with the operator in place of ``Op``.
        opset: Opset at which the nodes it builds are valid.
        kind: ``exact`` for the operator's own other version, ``expanded`` for other operators.
        asks: Whether it looks at shapes that it can do without.
    """

    run: Adapter
    name: str
    summary: str
    opset: int
    kind: str
    asks: bool


_TABLE: dict[Step, Entry] = {}
_UNSPELLED: dict[Step, str] = {}
_SAME: set[Step] = set()


def _enter(step: Step, run: Adapter, opset: int, kind: str, asks: bool) -> None:
    assert step not in _TABLE, step
    assert step not in _SAME, step
    summary = re.sub(r"\bOp\b", step[0], (run.__doc__ or "").partition("\n")[0])
    _TABLE[step] = Entry(run, run.__name__, summary, opset, kind, asks)


def adapter(
    operators: str, source: int, target: int, *, asks: bool = False
) -> Callable[[Adapter], Adapter]:
    """Enter a function into the table.

    In the first line of its docstring, its formula, ``Op`` stands for each of the operators.

    Args:
        operators: One operator or several, separated by spaces.
        source: Since-version of the node it is given.
        target: Since-version of the neighbour that it leads to. Upwards, what it builds must be
            valid at opset `target`; downwards at opset `source - 1`.
        asks: Whether it looks at shapes that it can do without, so that they are inferred first.
    """

    def enter(run: Adapter) -> Adapter:
        opset = target if target > source else source - 1
        for operator in operators.split():
            _enter((operator, source, target), run, opset, "exact", asks)
        return run

    return enter


def expansion(
    operators: str, since: int, *, opset: int | None = None
) -> Callable[[Adapter], Adapter]:
    """Enter a function that replaces an operator's first version by older operators.

    Args:
        operators: One operator or several, separated by spaces.
        since: Their first since-version.
        opset: Opset at which what it builds is valid; by default the one before `since`.
    """

    def enter(run: Adapter) -> Adapter:
        for operator in operators.split():
            at = since - 1 if opset is None else opset
            _enter((operator, since, None), run, at, "expanded", True)
        return run

    return enter


def same(text: str, *, up: bool = True, down: bool = True) -> None:
    """Enter steps that change nothing but the admitted types.

    Args:
        text: Lines of an operator and consecutive since-versions, such as ``Add 7 13 14``.
        up: Whether the upward steps are such.
        down: Whether the downward steps are such.
    """
    for line in text.split("\n"):
        operator, *words = line.split() or [""]
        versions = [int(word) for word in words]
        for low, high in pairwise(versions):
            pairs = [(low, high)] * up + [(high, low)] * down
            for step in ((operator, *pair) for pair in pairs):
                assert step not in _TABLE, step
                _SAME.add(step)


def unspelled(operators: str, since: int, reason: str, *, target: int | None = None) -> None:
    """Enter versions that older operators cannot spell.

    Args:
        operators: One operator or several, separated by spaces.
        since: Their since-version.
        reason: Why, as it is said to the user.
        target: The since-version below, by default none.
    """
    for operator in operators.split():
        _UNSPELLED[operator, since, target] = reason


def why_unspelled(step: Step) -> str | None:
    """Return why a step is refused for every node, None if it is not."""
    return _UNSPELLED.get(step)


def entry(step: Step) -> Entry | None:
    """Return the adapter for a step, None if it has none."""
    return _TABLE.get(step)


def entries() -> dict[Step, Entry]:
    """Return all adapters by step, in order of operator and version."""
    return dict(sorted(_TABLE.items(), key=lambda item: (item[0][0], item[0][1], item[0][2] or 0)))


def same_steps() -> list[Step]:
    """Return the hand-checked SAME set in order."""
    return sorted(_SAME, key=lambda step: (step[0], step[1], step[2] or 0))


def is_same(step: Step) -> bool:
    """Say whether a step is in the hand-checked SAME set."""
    return step in _SAME


def steps_between(operator: str, source: int, opset: int) -> list[Step]:
    """Return the steps that lead from a since-version to the one in force at an opset.

    Args:
        operator: Of the default domain.
        source: The since-version that its nodes are of.
        opset: The opset that they go to, either way.
    """
    versions = history(operator)
    at = versions.index(source)
    if opset >= source:
        later = [version for version in versions[at:] if version <= opset]
        return [(operator, a, b) for a, b in pairwise(later)]
    stops = [version for version in versions[at::-1] if version > opset]
    lowest = max((version for version in versions if version <= opset), default=None)
    return [(operator, a, b) for a, b in zip(stops, [*stops[1:], lowest], strict=True)]
