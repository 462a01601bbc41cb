"""The pattern language: operators, captures, numbers and what combines them.

A pattern is a value; used twice in one rule it stands for the same value of the graph.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import EllipsisType

__all__ = [
    "ABSENT",
    "Absent",
    "Anything",
    "Builder",
    "Capture",
    "Either",
    "Literal",
    "Named",
    "Number",
    "Op",
    "Operator",
    "Output",
    "P",
    "Pattern",
    "Through",
    "as_pattern",
]


class Pattern:
    """What a value may look like; Python arithmetic builds the ONNX operators of that name."""

    def __add__(self, other: Pattern | float) -> Op:
        return P.Add(self, other)

    def __radd__(self, other: float) -> Op:
        return P.Add(other, self)

    def __sub__(self, other: Pattern | float) -> Op:
        return P.Sub(self, other)

    def __rsub__(self, other: float) -> Op:
        return P.Sub(other, self)

    def __mul__(self, other: Pattern | float) -> Op:
        return P.Mul(self, other)

    def __rmul__(self, other: float) -> Op:
        return P.Mul(other, self)

    def __truediv__(self, other: Pattern | float) -> Op:
        return P.Div(self, other)

    def __rtruediv__(self, other: float) -> Op:
        return P.Div(other, self)

    def __pow__(self, other: Pattern | float) -> Op:
        return P.Pow(self, other)

    def __neg__(self) -> Op:
        return P.Neg(self)

    def __or__(self, other: Pattern | str | float) -> Either:
        """Match this or, failing that, the other."""
        return Either((self, as_pattern(other)))

    def __ror__(self, other: str | float) -> Either:
        return Either((as_pattern(other), self))

    def named(self, name: str) -> Named:
        """Match this and capture the value it matches."""
        return Named(name, self)


@dataclass(frozen=True, eq=False)
class Anything(Pattern):
    """Any value, or any attribute value, not captured."""


@dataclass(frozen=True, eq=False)
class Absent(Pattern):
    """An optional input that is not there."""


ABSENT = Absent()


@dataclass(frozen=True, eq=False)
class Capture(Pattern):
    """A value handed to the rule under a name; twice the same name is the same value.

    Attributes:
        name: The rule's parameter.
        rest: Whether it takes all remaining inputs, as a tuple.
        rank: How many axes the value must be known to have; None for any number.
        among: Operators of which one must produce one of the remaining inputs.
    """

    name: str
    rest: bool = False
    rank: int | None = None
    among: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Number(Pattern):
    """A constant of that value: exactly where the element type holds it, else within rounding."""

    value: float


@dataclass(frozen=True, eq=False)
class Op(Pattern):
    """A node.

    Attributes:
        ops: Operators it may be, as (domain, operator).
        inputs: One pattern for each input; inputs beyond must be absent.
        attributes: Expected attributes. One that the model's opset has as an input instead is
            looked for there.
        outputs: How many outputs the pattern speaks of; those beyond must be unused.
        node: Name under which the node itself is captured. Without it, attributes that the
            pattern does not mention must be at their defaults.
        open: Whether any further inputs and attributes are welcome.
        stays: Whether other users are welcome: the node then stays for them.
    """

    ops: tuple[tuple[str, str], ...]
    inputs: tuple[Pattern, ...]
    attributes: Mapping[str, object] = field(default_factory=dict)
    outputs: int = 1
    node: str | None = None
    open: bool = False
    stays: bool = False

    @cached_property
    def strict(self) -> bool:
        """Whether attributes that the pattern does not mention must be at their defaults."""
        return self.node is None and not self.open

    @property
    def shared(self) -> Op:
        """Return this pattern for a node that may have users outside the match."""
        return dataclasses.replace(self, stays=True)

    def __getitem__(self, index: int) -> Output:
        """Return the pattern of one of several outputs."""
        if not 0 <= index < self.outputs:
            raise IndexError(f"{self.label} has {self.outputs} outputs in this pattern")
        return Output(self, index)

    def __iter__(self) -> Iterator[Output]:
        return iter([Output(self, index) for index in range(self.outputs)])

    @property
    def label(self) -> str:
        """Return the operators, for messages."""
        return " or ".join(f"{d}::{t}" if d else t for d, t in self.ops)


@dataclass(frozen=True, eq=False)
class Output(Pattern):
    """One output of a node that has several."""

    op: Op
    index: int


@dataclass(frozen=True, eq=False)
class Either(Pattern):
    """Alternatives, tried in order."""

    options: tuple[Pattern, ...]

    def __or__(self, other: Pattern | str | float) -> Either:
        return Either((*self.options, as_pattern(other)))


@dataclass(frozen=True, eq=False)
class Through(Pattern):
    """The inner pattern behind any number of nodes of these types, followed by first input."""

    ops: tuple[str, ...]
    inner: Pattern


@dataclass(frozen=True, eq=False)
class Named(Pattern):
    """The inner pattern, with the value it matches captured."""

    name: str
    inner: Pattern


@dataclass(frozen=True)
class Literal:
    """A text as attribute value; a bare string would be a capture."""

    text: str


def as_pattern(given: Pattern | str | float | None) -> Pattern:
    """Turn what stands in an operator's argument list into a pattern.

    ``"x"`` captures a value, ``"b?"`` one that may be absent, ``"xs*"`` all remaining inputs; a
    number is a constant; None is an input that must be absent.
    """
    if isinstance(given, Pattern):
        return given
    if given is None:
        return ABSENT
    if not isinstance(given, str):
        return Number(float(given))
    if given.endswith("?"):
        return Either((Capture(given[:-1]), ABSENT))
    return Capture(given.rstrip("*"), rest=given.endswith("*"))


@dataclass(frozen=True)
class Operator:
    """Builds the pattern of a node: ``P.Gemm("a", "b", "c?", transB=1)``."""

    names: tuple[str, ...]
    optional: bool = False

    def __or__(self, other: Operator) -> Operator:
        """Match either operator: ``(P.Relu | P.Tanh)("x", _node="act")``."""
        return Operator(self.names + other.names)

    def __call__(
        self,
        *inputs: Pattern | str | float | EllipsisType | None,
        _domain: str = "",
        _outputs: int = 1,
        _node: str | None = None,
        **attributes: object,
    ) -> Op:
        """Return the pattern.

        Args:
            inputs: Patterns, captures, numbers, or None for an input that must be absent; a last
                ``...`` stands for any further inputs and attributes.
            _domain: The operator's domain.
            _outputs: How many outputs the pattern speaks of.
            _node: Name under which the node is captured.
            attributes: ``axis="axis"`` captures, ``axis=-1`` compares (a default counts as
                written), ``mode=P.literal("linear")`` compares a text.
        """
        ops = tuple((_domain, name) for name in self.names)
        patterns = tuple(as_pattern(given) for given in inputs if given is not Ellipsis)
        return Op(ops, patterns, attributes, _outputs, _node, open=Ellipsis in inputs)


@dataclass(frozen=True)
class MaybeOperator:
    """Builds the pattern of a node that may be missing, leaving its first input."""

    name: str

    def __call__(
        self, first: Pattern | str, *inputs: Pattern | str | float, **attributes: object
    ) -> Either:
        """Match the operator on these inputs, or else the first input alone."""
        inner = as_pattern(first)
        ops = (("", self.name),)
        op = Op(ops, (inner, *(as_pattern(given) for given in inputs)), attributes)
        return Either((op.shared if isinstance(inner, Capture) else op, inner))


class Maybe:
    """``P.maybe.Cast(p, to="to")`` is ``P.Cast(p, to="to") | p``.

    Right around a capture it may have other users, as nothing is computed below it.
    """

    def __getattr__(self, op_type: str) -> MaybeOperator:
        if not op_type[:1].isupper():
            raise AttributeError(op_type)
        return MaybeOperator(op_type)


class Builder:
    """The builder `P`: an attribute in capitals is an operator, ``P("x")`` a capture."""

    any = Anything()
    maybe = Maybe()
    literal = Literal

    def __call__(self, given: str | float) -> Pattern:
        """Return a capture or constant as a pattern, ready for arithmetic."""
        return as_pattern(given)

    def __getattr__(self, op_type: str) -> Operator:
        if not op_type[:1].isupper():
            raise AttributeError(op_type)
        return Operator((op_type,))

    def several(self, name: str, *, some: Operator) -> Capture:
        """Capture all remaining inputs, as ``"name*"`` does, where an operator produces some."""
        return Capture(name, rest=True, among=some.names)

    def scalar(self, name: str) -> Capture:
        """Capture a value known to have no axes."""
        return Capture(name, rank=0)

    def vector(self, name: str) -> Capture:
        """Capture a value known to have one axis."""
        return Capture(name, rank=1)

    def matrix(self, name: str) -> Capture:
        """Capture a value known to have two axes."""
        return Capture(name, rank=2)

    def either(self, *options: Pattern) -> Either:
        """Match the first of several patterns that does."""
        return Either(options)

    def optional(self, inner: Pattern | float) -> Either:
        """Match an input that may be absent."""
        return Either((as_pattern(inner), ABSENT))

    def through(self, inner: Pattern | str, *op_types: str) -> Through:
        """Look through any number of nodes such as Cast or Identity; the rule must not mind."""
        return Through(op_types, as_pattern(inner))


P = Builder()
