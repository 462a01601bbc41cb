"""A pattern taken apart once, when its rule is defined: what the matcher and the index ask."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Final, TypeAlias

from vlmpass.ir_tools.rewrite.captures import NODE, REST, Kind
from vlmpass.ir_tools.rewrite.pattern import (
    Absent,
    Capture,
    Either,
    Named,
    Number,
    Op,
    Output,
    Pattern,
    Through,
)

__all__ = [
    "ABSENT_TOKEN",
    "CONSTANT",
    "INPUT",
    "Link",
    "Plan",
    "Token",
    "Use",
    "ops_at",
    "plan_of",
]

Token: TypeAlias = "tuple[str | float, int]"
"""What is told of a value: what produces it, and its rank, -1 if unknown. The first is an
operator's name, one of the three below, or the number that a small constant is all over."""
ABSENT: Final = ""
CONSTANT: Final = "="
INPUT: Final = "?"
ABSENT_TOKEN: Final[Token] = (ABSENT, -1)
_REFERENCES: Final = frozenset([CONSTANT, "Cast", "CastLike"])
"""What produces a number that only the caller of a function knows."""


@dataclass(frozen=True)
class Use:
    """What kinds of things one capture name stands for in a pattern."""

    value: bool = False
    attribute: bool = False
    node: bool = False
    rest: bool = False


@dataclass(frozen=True)
class Link:
    """How a further root is found from what the earlier ones matched.

    Attributes:
        root: The further root.
        start: A pattern the roots share: a captured value or a node.
        path: The patterns from a user of that value up to the root, which comes last.
    """

    root: Op
    start: Pattern
    path: tuple[Op, ...]


@dataclass(frozen=True)
class Plan:
    """A pattern's facts.

    Attributes:
        roots: Its roots; nodes are looked for by the first.
        links: How the others are found.
        captures: Uses of every capture name.
        certain: Names bound by every match; the others may be None.
        ops: Every node pattern, an operand before its user.
        parents: The node patterns that use a node pattern, Through and Either left out.
        root_ops: The node patterns that can be the first root.
        through: The optional wrappers.
        repeated: Alternatives and wrappers that stand in several places: one value each.
    """

    roots: tuple[Pattern, ...]
    links: tuple[Link, ...]
    captures: Mapping[str, Use]
    certain: frozenset[str]
    ops: tuple[Op, ...]
    parents: Mapping[Op, tuple[Op, ...]]
    root_ops: tuple[Op, ...]
    through: tuple[Through, ...]
    repeated: frozenset[Pattern]

    @cached_property
    def uncertain(self) -> tuple[str, ...]:
        """Names that some matches do not bind."""
        return tuple(name for name in self.captures if name not in self.certain)

    def may_match(self, pattern: Pattern, token: Token, kinds: Mapping[str, Kind]) -> bool:
        """Return whether a pattern can match a value, judging by what produces it.

        Args:
            pattern: A part of this plan's pattern.
            token: What is told of the value.
            kinds: The kinds of the captures.
        """
        producer = token[0]
        match pattern:
            case Op():
                return any(op_type == producer for _, op_type in pattern.ops)
            case Output():
                return self.may_match(pattern.op, token, kinds)
            case Number():
                return isinstance(producer, float) and _near(pattern.value, producer)
            case Capture():
                fits = pattern.rank in (None, token[1])
                return fits and producer != ABSENT and _may_be(kinds[pattern.name], producer)
            case Either():
                return any(self.may_match(option, token, kinds) for option in pattern.options)
            case Through():
                return producer in pattern.ops or self.may_match(pattern.inner, token, kinds)
            case Named():
                return self.may_match(pattern.inner, token, kinds)
            case Absent():
                return producer == ABSENT
        return producer != ABSENT


def _may_be(kind: Kind, producer: str | float) -> bool:
    """Return whether a value with such a producer may be of a kind."""
    if kind.scalar:
        refers = kind.of_reference is not None and producer in _REFERENCES
        return isinstance(producer, float) or refers
    return not kind.constant or producer == CONSTANT or isinstance(producer, float)


def _near(expected: float, number: float) -> bool:
    """Return whether a constant may be a number in some element type, however coarse."""
    return abs(number - expected) <= 0.1 * abs(expected)


def _parts(pattern: Pattern) -> tuple[Pattern, ...]:
    match pattern:
        case Op():
            return pattern.inputs
        case Output():
            return (pattern.op,)
        case Either():
            return pattern.options
        case Through() | Named():
            return (pattern.inner,)
    return ()


def _walk(pattern: Pattern, seen: dict[Pattern, None]) -> None:
    if pattern in seen:
        return
    for part in _parts(pattern):
        _walk(part, seen)
    seen[pattern] = None


def _attribute_names(op: Op) -> Iterator[str]:
    for expected in op.attributes.values():
        if isinstance(expected, str):
            yield expected


@cache  # parts are shared by many patterns, and by many alternatives of one
def _certain(pattern: Pattern) -> frozenset[str]:
    """Return the names that every match of a pattern binds."""
    inner = [_certain(part) for part in _parts(pattern)]
    match pattern:
        case Capture(name=name):
            return frozenset([name])
        case Either():
            return frozenset.intersection(*inner)
        case Named(name=name):
            return inner[0] | {name}
        case Op():
            node = {pattern.node} if pattern.node else set()
            return frozenset(_attribute_names(pattern)).union(node, *inner)
    return frozenset().union(*inner)


def _uses(patterns: dict[Pattern, None]) -> dict[str, Use]:
    uses: dict[str, set[str]] = {}
    for pattern in patterns:
        match pattern:
            case Capture(name=name, rest=rest):
                uses.setdefault(name, set()).add("rest" if rest else "value")
            case Named(name=name):
                uses.setdefault(name, set()).add("value")
            case Op():
                for name in _attribute_names(pattern):
                    uses.setdefault(name, set()).add("attribute")
                if pattern.node:
                    uses.setdefault(pattern.node, set()).add("node")
    return {name: Use(**dict.fromkeys(sorted(how), True)) for name, how in uses.items()}


def ops_at(pattern: Pattern) -> tuple[Op, ...]:
    """Return the node patterns that can stand right where a pattern stands."""
    if isinstance(pattern, Op):
        return (pattern,)
    return tuple(op for part in _parts(pattern) for op in ops_at(part))


def _repeated(patterns: Iterable[Pattern]) -> frozenset[Pattern]:
    """Return the alternatives and wrappers that are part of several patterns."""
    places = Counter(part for pattern in patterns for part in _parts(pattern))
    return frozenset(
        part for part, count in places.items() if count > 1 and isinstance(part, (Either, Through))
    )


def _parents(ops: tuple[Op, ...]) -> dict[Op, tuple[Op, ...]]:
    parents: dict[Op, dict[Op, None]] = {op: {} for op in ops}
    for user in ops:
        for given in user.inputs:
            for op in ops_at(given):
                parents[op][user] = None
    return {op: tuple(users) for op, users in parents.items()}


def _paths(root: Op, goal: Pattern) -> Iterator[tuple[Op, ...]]:
    """Yield the node patterns between a goal below a root and the root."""
    for given in root.inputs:
        stack = [given]
        while stack:
            part = stack.pop()
            if part is goal or (isinstance(part, Output) and part.op is goal):
                yield (root,)
            elif isinstance(part, Capture) and isinstance(goal, Capture):
                if part.name == goal.name:
                    yield (root,)
            elif isinstance(part, Op):
                yield from ((*path, root) for path in _paths(part, goal))
            else:
                stack.extend(_parts(part))


def _link(root: Op, before: dict[Pattern, None]) -> Link | None:
    """Return the shortest way from what earlier roots match to this one; nodes before values."""
    if root in before:
        return Link(root, root, ())
    ways = [
        (not isinstance(start, (Op, Output)), len(path), order, Link(root, start, path))
        for order, start in enumerate(before)
        if isinstance(start, (Op, Capture))
        for path in _paths(root, start)
    ]
    return min(ways, key=lambda way: way[:3])[3] if ways else None


def plan_of(roots: tuple[Pattern, ...], kinds: Mapping[str, Kind]) -> Plan | str:
    """Take a pattern apart; return what is wrong with it where something is."""
    seen: dict[Pattern, None] = {}
    links: list[Link] = []
    for index, root in enumerate(roots):
        before = {
            pattern: None
            for pattern in seen
            if not (isinstance(pattern, Capture) and _unfindable(pattern, kinds))
        }
        _walk(root, seen)
        if index == 0:
            continue
        link = _link(root, before) if isinstance(root, Op) else None
        if link is None:
            return f"root {index + 1} of the pattern shares no value with the roots before it"
        links.append(link)
    ops = tuple(pattern for pattern in seen if isinstance(pattern, Op))
    root_ops = tuple(dict.fromkeys(ops_at(roots[0])))
    if not root_ops:
        return "the pattern's root is no operator"
    return Plan(
        roots,
        tuple(links),
        _uses(seen),
        frozenset().union(*(_certain(root) for root in roots)),
        ops,
        _parents(ops),
        root_ops,
        tuple(pattern for pattern in seen if isinstance(pattern, Through)),
        _repeated(seen),
    )


def _unfindable(capture: Capture, kinds: Mapping[str, Kind]) -> bool:
    kind = kinds.get(capture.name)
    return capture.rest or kind is None or kind.constant or kind in (NODE, REST)
