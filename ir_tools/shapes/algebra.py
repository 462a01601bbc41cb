"""Exact integer expressions over dimensions: polynomials of atoms, and opaque atoms for the rest.

An atom is the size of one axis of one value, one element of an integer tensor, or an operation
that is no polynomial. Two expressions are equal only if that is proven for every input.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import onnx_ir as ir

__all__ = ["Algebra", "Atom", "Dim", "Expr", "add", "divide_exactly", "mul", "product", "sub"]

Monomial: TypeAlias = "tuple[int, ...]"
_MOST_TERMS = 24
# No tensor has an axis this long, and exporters write both for "to the end".
ENDLESS = 2**31 - 1


@dataclass(frozen=True)
class Expr:
    """A polynomial with integer coefficients that is not a plain integer.

    Attributes:
        terms: Pairs of a monomial (serial numbers of atoms, ascending, repeated for powers) and a
            coefficient other than 0, ascending by monomial; () is the constant term's monomial.
    """

    terms: tuple[tuple[Monomial, int], ...]

    def __hash__(self) -> int:
        return hash(self.terms)

    @property
    def atom(self) -> int | None:
        """The serial number of the atom that this expression just is, else None."""
        if len(self.terms) == 1:
            ((monomial, coefficient),) = self.terms
            if coefficient == 1 and len(monomial) == 1:
                return monomial[0]
        return None


Dim: TypeAlias = "int | Expr"


def _terms(dim: Dim) -> tuple[tuple[Monomial, int], ...]:
    if isinstance(dim, Expr):
        return dim.terms
    return (((), dim),) if dim else ()


def _build(terms: dict[Monomial, int]) -> Dim:
    kept = sorted((monomial, factor) for monomial, factor in terms.items() if factor)
    if not kept:
        return 0
    if len(kept) == 1 and kept[0][0] == ():
        return kept[0][1]
    return Expr(tuple(kept))


def add(a: Dim, b: Dim) -> Dim:
    """Return a + b."""
    if isinstance(a, int) and isinstance(b, int):
        return a + b
    terms = dict(_terms(a))
    for monomial, factor in _terms(b):
        terms[monomial] = terms.get(monomial, 0) + factor
    return _build(terms)


def sub(a: Dim, b: Dim) -> Dim:
    """Return a - b."""
    return a - b if isinstance(a, int) and isinstance(b, int) else add(a, mul(b, -1))


def mul(a: Dim, b: Dim) -> Dim:
    """Return a * b."""
    if isinstance(a, int) and isinstance(b, int):
        return a * b
    if a == 1:
        return b
    if b == 1:
        return a
    terms: dict[Monomial, int] = {}
    for left, x in _terms(a):
        for right, y in _terms(b):
            monomial = tuple(sorted(left + right))
            terms[monomial] = terms.get(monomial, 0) + x * y
    return _build(terms)


def product(dims: Iterable[Dim]) -> Dim:
    """Return the product of all; 1 for none."""
    total: Dim = 1
    for dim in dims:
        total = mul(total, dim)
    return total


def _without(monomial: Monomial, factor: Monomial) -> Monomial | None:
    rest = list(monomial)
    for atom in factor:
        if atom not in rest:
            return None
        rest.remove(atom)
    return tuple(rest)


def _leading(dim: Dim) -> tuple[Monomial, int]:
    """Return the greatest term in graded lexicographic order."""
    return max(_terms(dim), key=lambda term: (len(term[0]), [-serial for serial in term[0]]))


def divide_exactly(a: Dim, b: Dim) -> Dim | None:
    """Return q where a == q * b as polynomials, None if there is none."""
    if b == 1:
        return a
    if b == 0 or (isinstance(a, Expr) and len(a.terms) > _MOST_TERMS):
        return None
    shared, factor = _leading(b)
    quotient: Dim = 0
    while a != 0:
        monomial, coefficient = _leading(a)
        rest = _without(monomial, shared)
        if rest is None or coefficient % factor:
            return None
        term = _build({rest: coefficient // factor})
        quotient = add(quotient, term)
        a = sub(a, mul(term, b))
    return quotient


@dataclass(frozen=True)
class Atom:
    """What an expression is made of.

    Attributes:
        serial: Its number in the algebra.
        low: A proven lower bound, None if there is none.
        value: The value whose axis or element this is, None for an operation.
        index: The axis, or the place among the elements in row-major order.
        operation: ``dim``, ``element``, or ``floordiv``, ``truncdiv``, ``max``, ``min``,
            ``broadcast`` of `args`.
        args: The operands of an operation.
    """

    serial: int
    low: int | None
    value: ir.Value | None
    index: int
    operation: str
    args: tuple[Dim, ...]


class Algebra:
    """Makes the atoms of one analysis and everything that is more than a polynomial."""

    def __init__(self) -> None:
        self.atoms: list[Atom] = []
        self._interned: dict[object, Expr] = {}

    def _intern(
        self,
        operation: str,
        low: int | None,
        args: tuple[Dim, ...] = (),
        value: ir.Value | None = None,
        index: int = 0,
    ) -> Expr:
        key = (operation, args, id(value), index)
        if (found := self._interned.get(key)) is not None:
            return found
        serial = len(self.atoms)
        self.atoms.append(Atom(serial, low, value, index, operation, args))
        expr = Expr((((serial,), 1),))
        self._interned[key] = expr
        return expr

    def axis(self, value: ir.Value, axis: int, low: int = 0) -> Expr:
        """Return the unknown size of one axis of a value; `low` counts when it is made first."""
        return self._intern("dim", low, value=value, index=axis)

    def atoms_in(self, dim: Dim) -> set[int]:
        """Return the serial numbers of all atoms that an expression depends on."""
        found: set[int] = set()
        pending = [dim]
        while pending:
            each = pending.pop()
            if isinstance(each, int):
                continue
            for serial in {serial for monomial, _ in each.terms for serial in monomial} - found:
                found.add(serial)
                pending.extend(self.atoms[serial].args)
        return found

    def element(self, value: ir.Value, index: int, low: int | None = None) -> Expr:
        """Return one unknown element of an integer tensor."""
        return self._intern("element", low, value=value, index=index)

    def low(self, dim: Dim) -> int | None:
        """Return a proven lower bound, None if there is none."""
        if isinstance(dim, int):
            return dim
        bound = 0
        for monomial, factor in dim.terms:
            lows = [self.atoms[serial].low for serial in monomial]
            if not lows:
                bound += factor
            elif factor < 0 or lows[0] is None:
                return None
            elif len(lows) == 1:
                bound += factor * lows[0]
            elif all(low is not None and low >= 0 for low in lows):
                bound += factor * math.prod(low for low in lows if low is not None)
            else:
                return None
        return bound

    def nonnegative(self, dim: Dim) -> bool:
        """Whether dim >= 0 is proven."""
        low = self.low(dim)
        return low is not None and low >= 0

    def positive(self, dim: Dim) -> bool:
        """Whether dim >= 1 is proven."""
        low = self.low(dim)
        return low is not None and low >= 1

    def at_least(self, a: Dim, b: Dim) -> bool:
        """Whether a >= b is proven."""
        return self.nonnegative(sub(a, b))

    def equal(self, a: Dim, b: Dim) -> bool | None:
        """Return whether a == b, None if it depends on the input."""
        difference = sub(a, b)
        if isinstance(difference, int):
            return difference == 0
        if self.positive(difference) or self.positive(mul(difference, -1)):
            return False
        return None

    def less(self, a: Dim, b: Dim) -> bool | None:
        """Return whether a < b, None if it depends on the input."""
        if self.positive(sub(b, a)):
            return True
        return False if self.at_least(a, b) else None

    def floordiv(self, a: Dim, b: Dim) -> Dim:
        """Return a // b rounded down, for b that is not 0."""
        if isinstance(a, int) and isinstance(b, int):
            return a // b
        exact = divide_exactly(a, b)
        if exact is not None:
            return exact
        if isinstance(b, int) and b > 0:
            whole = {m: f // b * b for m, f in _terms(a) if f % b == 0 or not m}
            multiple = _build(whole)
            if multiple != 0:
                quotient = divide_exactly(multiple, b)
                assert quotient is not None
                return add(quotient, self.floordiv(sub(a, multiple), b))
        low = 0 if self.nonnegative(a) and self.positive(b) else None
        return self._intern("floordiv", low, (a, b))

    def truncdiv(self, a: Dim, b: Dim) -> Dim:
        """Return a / b rounded towards zero, as integer Div does, for b that is not 0."""
        if isinstance(a, int) and isinstance(b, int):
            return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)
        exact = divide_exactly(a, b)
        if exact is not None:
            return exact
        if self.nonnegative(a) and self.nonnegative(b):
            return self.floordiv(a, b)
        return self._intern("truncdiv", None, (a, b))

    def maximum(self, a: Dim, b: Dim) -> Dim:
        """Return the larger."""
        if self.at_least(a, b):
            return a
        if self.at_least(b, a):
            return b
        lows = [low for low in (self.low(a), self.low(b)) if low is not None]
        return self._intern("max", max(lows, default=None), self._sorted((a, b)))

    def minimum(self, a: Dim, b: Dim) -> Dim:
        """Return the smaller; an endless bound never is."""
        if self.at_least(a, b) or (isinstance(a, int) and a >= ENDLESS):
            return b
        if self.at_least(b, a) or (isinstance(b, int) and b >= ENDLESS):
            return a
        lows = [self.low(a), self.low(b)]
        low = None if None in lows else min(low for low in lows if low is not None)
        return self._intern("min", low, self._sorted((a, b)))

    def broadcast(self, dims: Sequence[Dim]) -> Dim:
        """Return the common size of axes that are broadcast together.

        An axis of unknown size may be 1, so two different ones give an atom of their own; a known
        size other than 1 is the result, because the model does not run with another.
        """
        if len(dims) == 2:
            one, two = dims
            if two == 1 or one == two:
                return one
            if one == 1:
                return two
        parts: dict[Dim, None] = {}
        for dim in dims:
            atom = dim.atom if isinstance(dim, Expr) else None
            if atom is not None and self.atoms[atom].operation == "broadcast":
                parts.update(dict.fromkeys(self.atoms[atom].args))
            elif dim != 1:
                parts[dim] = None
        for dim in parts:
            if isinstance(dim, int) or (self.low(dim) or 0) >= 2:
                return dim
        if len(parts) <= 1:
            return next(iter(parts), 1)
        lows = [self.low(dim) for dim in parts]
        low = min((low if low is not None else 0) for low in lows)
        return self._intern("broadcast", max(low, 0), self._sorted(tuple(parts)))

    @staticmethod
    def _sorted(args: tuple[Dim, ...]) -> tuple[Dim, ...]:
        return tuple(sorted(args, key=lambda dim: (isinstance(dim, Expr), _terms(dim))))

    def small(self, dim: Dim) -> bool:
        """Whether an expression is short enough to be worth carrying on."""
        return isinstance(dim, int) or len(dim.terms) <= _MOST_TERMS

    def text(self, dim: Dim) -> str:
        """Return an expression for messages, such as ``2*batch*seq + 1``."""
        if isinstance(dim, int):
            return str(dim)
        parts = []
        for monomial, factor in reversed(dim.terms):
            names = [self._atom_text(serial) for serial in monomial]
            if factor != 1 or not names:
                names.insert(0, str(factor))
            parts.append("*".join(names))
        return " + ".join(parts)

    def _atom_text(self, serial: int) -> str:
        atom = self.atoms[serial]
        if atom.value is not None:
            if atom.operation == "element":
                return f"{atom.value.name}[{atom.index}]"
            shape = atom.value.shape
            named = shape[atom.index] if shape is not None and atom.index < len(shape) else None
            if isinstance(named, ir.SymbolicDim) and named.value is not None:
                return named.value
            return f"{atom.value.name}:{atom.index}"
        return f"{atom.operation}({', '.join(self.text(arg) for arg in atom.args)})"
