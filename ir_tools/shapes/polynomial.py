"""Sums and products of atoms, hash-consed: equal ones are one object that carries its atoms.

What would grow past a bound becomes an atom of its own, so that no chain of operations costs more
than its length.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, TypeAlias

from vlmpass.ir_tools.graph.symbols import new_symbol

if TYPE_CHECKING:
    from vlmpass.ir_tools.shapes.algebra import Algebra

__all__ = [
    "MOST_PARTS",
    "MOST_TERMS",
    "Dim",
    "Expr",
    "Monomial",
    "Term",
    "add",
    "degree",
    "divide_exactly",
    "mul",
    "product",
    "sub",
    "terms_of",
]

Monomial: TypeAlias = "tuple[tuple[int, int], ...]"
Term: TypeAlias = "tuple[Monomial, int]"

MOST_TERMS = 24
"""Of how many terms a size is still worth carrying on."""
MOST_PARTS = 96
"""How many symbols a size may be written with, those inside its atoms included."""
_MOST_IN_BETWEEN = 64
_HIGHEST_DEGREE = 16
_LARGEST_FACTOR = 2**63
_MOST_STEPS = 64


class Expr:
    """A polynomial with integer coefficients that is not a plain integer.

    There is one object for all equal ones of an algebra, so that equality is identity.

    Attributes:
        algebra: What it is made with.
        terms: Pairs of a monomial (serial numbers of atoms, ascending, each with its power) and a
            coefficient other than 0, ascending by monomial; () is the constant term's monomial.
        atoms: Serial numbers of all atoms it depends on, those inside of others included.
        size: How many symbols it is written with.
        degree: Of how many sizes it can be the product, those inside of its atoms counted.
        open: Whether it depends on an element of a tensor, which can be any number.
    """

    __slots__ = ("_low", "_symbol", "algebra", "atoms", "degree", "open", "size", "terms")

    def __init__(self, algebra: Algebra, terms: tuple[Term, ...]) -> None:
        """Make one; only `Algebra.polynomial` does, which knows all there are."""
        self.algebra = algebra
        self.terms = terms
        self._low: int | str | None = ""
        self._symbol: int | None = None
        own = {serial: None for monomial, _ in terms for serial, _ in monomial}
        atoms = algebra.atoms
        if len(own) == 1:
            self.atoms = atoms[next(iter(own))].atoms
        else:
            self.atoms = frozenset().union(*(atoms[serial].atoms for serial in own))
        self.size = len(terms) + sum(atoms[serial].size for serial in own)
        self.open = any(atoms[serial].open for serial in own)
        self.degree = max(
            sum(atoms[serial].degree * power for serial, power in monomial) for monomial, _ in terms
        )

    def __repr__(self) -> str:
        return f"Expr({self.algebra.text(self)})"

    @property
    def atom(self) -> int | None:
        """The serial number of the atom that this expression just is, else None."""
        if len(self.terms) == 1:
            ((monomial, coefficient),) = self.terms
            if coefficient == 1 and len(monomial) == 1 and monomial[0][1] == 1:
                return monomial[0][0]
        return None

    @property
    def may_wrap(self) -> bool:
        """Whether int64 may not hold it: sizes are small, but elements can be any number."""
        return self.open and self.atom is None

    @property
    def symbol(self) -> int:
        """What stands for it in shapes, and for nothing else in any algebra."""
        if self._symbol is None:
            self._symbol = new_symbol()
        return self._symbol

    @property
    def low(self) -> int | None:
        """A proven lower bound, None if there is none."""
        if self.may_wrap:
            return None
        if isinstance(self._low, str):
            bounds = [self._lowest(monomial, factor) for monomial, factor in self.terms]
            known = [bound for bound in bounds if bound is not None]
            self._low = sum(known) if len(known) == len(bounds) else None
        return self._low

    def _lowest(self, monomial: Monomial, factor: int) -> int | None:
        if not monomial:
            return factor
        lows = [(self.algebra.atoms[serial].low, power) for serial, power in monomial]
        known = [
            int(low**power) for low, power in lows if low is not None and (low >= 0 or power == 1)
        ]
        if factor < 0 or len(known) < len(lows) or (len(known) > 1 and min(known) < 0):
            return None
        return factor * math.prod(known)


Dim: TypeAlias = "int | Expr"


def terms_of(dim: Dim) -> tuple[Term, ...]:
    """Return the terms of an expression or a number."""
    if isinstance(dim, Expr):
        return dim.terms
    return (((), dim),) if dim else ()


def add(a: Dim, b: Dim) -> Dim:
    """Return a + b."""
    if isinstance(a, int):
        if isinstance(b, int) or a == 0:
            return a + b if isinstance(b, int) else b
        a, b = b, a
    if b == 0:
        return a
    terms = dict(a.terms)
    for monomial, factor in terms_of(b):
        terms[monomial] = terms.get(monomial, 0) + factor
    return a.algebra.polynomial(terms) if _fits(terms) else a.algebra.opaque("sum", a, b)


def sub(a: Dim, b: Dim) -> Dim:
    """Return a - b."""
    return a - b if isinstance(a, int) and isinstance(b, int) else add(a, mul(b, -1))


def mul(a: Dim, b: Dim) -> Dim:
    """Return a * b."""
    if isinstance(a, int):
        if isinstance(b, int):
            return a * b
        a, b = b, a
    if isinstance(b, int) and b in (0, 1):
        return a if b else 0
    terms: dict[Monomial, int] = {}
    others = terms_of(b)
    if len(a.terms) * len(others) <= _MOST_IN_BETWEEN:
        for left, x in a.terms:
            for right, y in others:
                monomial = _times(left, right)
                terms[monomial] = terms.get(monomial, 0) + x * y
        if _fits(terms):
            return a.algebra.polynomial(terms)
    return a.algebra.opaque("product", a, b)


def product(dims: Iterable[Dim]) -> Dim:
    """Return the product of all; 1 for none."""
    total: Dim = 1
    for dim in dims:
        total = mul(total, dim)
    return total


def _fits(terms: dict[Monomial, int]) -> bool:
    """Whether a polynomial is within the bounds of what is written out."""
    return len(terms) <= _MOST_IN_BETWEEN and all(
        abs(factor) <= _LARGEST_FACTOR and degree(monomial) <= _HIGHEST_DEGREE
        for monomial, factor in terms.items()
    )


def degree(monomial: Monomial) -> int:
    """Return of how many atoms a monomial is the product."""
    return sum(power for _, power in monomial)


def _times(one: Monomial, other: Monomial) -> Monomial:
    if not one or not other:
        return one or other
    powers = dict(one)
    for serial, power in other:
        powers[serial] = powers.get(serial, 0) + power
    return tuple(sorted(powers.items()))


def _without(monomial: Monomial, factor: Monomial) -> Monomial | None:
    powers = dict(monomial)
    for serial, power in factor:
        left = powers.get(serial, 0) - power
        if left < 0:
            return None
        powers[serial] = left
    return tuple((serial, power) for serial, power in powers.items() if power)


def _leading(dim: Dim) -> Term:
    """Return the greatest term in graded lexicographic order."""
    return max(terms_of(dim), key=lambda term: (degree(term[0]), _lexicographic(term[0])))


def _lexicographic(monomial: Monomial) -> list[int]:
    return [-serial for serial, power in monomial for _ in range(power)]


def divide_exactly(a: Dim, b: Dim) -> Dim | None:
    """Return q where a == q * b as polynomials, None if there is none or it takes too long."""
    if isinstance(b, int):
        return _divide_by_number(a, b)
    if a is b:
        return 1
    if isinstance(a, int) or len(a.terms) > MOST_TERMS:
        return 0 if a == 0 else None
    shared, factor = _leading(b)
    quotient: Dim = 0
    for _ in range(_MOST_STEPS):
        if a == 0:
            return quotient
        monomial, coefficient = _leading(a)
        rest = _without(monomial, shared)
        if rest is None or coefficient % factor:
            return None
        term = b.algebra.polynomial({rest: coefficient // factor})
        quotient = add(quotient, term)
        a = sub(a, mul(term, b))
    return None


def _divide_by_number(a: Dim, b: int) -> Dim | None:
    if b == 1:
        return a
    if b == 0 or any(factor % b for _, factor in terms_of(a)):
        return None
    if isinstance(a, int):
        return a // b
    return a.algebra.polynomial({monomial: factor // b for monomial, factor in a.terms})
