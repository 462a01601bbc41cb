"""Exact integer expressions over dimensions: polynomials of atoms, and opaque atoms for the rest.

An atom is the size of one axis of one value, one element of an integer tensor, or an operation
that is no polynomial. Two expressions are equal only if that is proven for every input.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from vlmpass.ir_tools.shapes.polynomial import (
    MOST_PARTS,
    MOST_TERMS,
    Dim,
    Expr,
    Monomial,
    Term,
    add,
    divide_exactly,
    mul,
    product,
    sub,
    terms_of,
)

__all__ = [
    "ENDLESS",
    "Algebra",
    "Atom",
    "Dim",
    "Expr",
    "add",
    "divide_exactly",
    "mul",
    "product",
    "sub",
]

# No tensor has an axis this long, and exporters write both for "to the end".
ENDLESS = 2**31 - 1
_MOST_BROADCAST = 8
_TOO_LARGE = frozenset({"sum", "product"})
_HIGHEST_COUNTED = 4
"""Products of more sizes may be more than an int64 holds; of so many they are tensors' sizes."""


@dataclass(frozen=True)
class Atom:
    """What an expression is made of.

    Attributes:
        serial: Its number in the algebra.
        low: A proven lower bound, None if there is none.
        value: The value whose axis or element this is, None for an operation.
        index: The axis, or the place among the elements in row-major order.
        operation: ``dim``, ``element``, or ``floordiv``, ``truncdiv``, ``max``, ``min``,
            ``broadcast`` of `args`, and ``sum`` and ``product`` that are too large to write out.
        args: The operands of an operation.
        atoms: Serial numbers of all atoms it depends on, its own included.
        size: How many symbols it is written with.
        degree: Of how many sizes it can be the product.
        open: Whether it depends on an element of a tensor, which can be any number.
    """

    serial: int
    low: int | None
    value: ir.Value | None
    index: int
    operation: str
    args: tuple[Dim, ...]
    atoms: frozenset[int]
    size: int
    degree: int
    open: bool


class Algebra:
    """Makes the atoms of one analysis and everything that is more than a polynomial."""

    def __init__(self) -> None:
        self.atoms: list[Atom] = []
        self._interned: dict[object, Expr] = {}
        self._polynomials: dict[tuple[Term, ...], Expr] = {}
        self._of_value: dict[ir.Value, list[int]] = {}

    def polynomial(self, terms: Mapping[Monomial, int]) -> Dim:
        """Return the sum of some monomials times their coefficients."""
        kept = tuple(sorted((each, factor) for each, factor in terms.items() if factor))
        if not kept:
            return 0
        if len(kept) == 1 and kept[0][0] == ():
            return kept[0][1]
        found = self._polynomials.get(kept)
        if found is None:
            found = self._polynomials[kept] = Expr(self, kept)
        return found

    def opaque(self, operation: str, a: Dim, b: Dim) -> Expr:
        """Return an operation that is not written out, as an atom.

        Args:
            operation: ``sum`` or ``product``.
            a: One operand.
            b: The other; their order does not matter.
        """
        lows = [low for low in (self.low(a), self.low(b)) if low is not None and low >= 0]
        low = None if len(lows) < 2 else sum(lows) if operation == "sum" else lows[0] * lows[1]
        return self._intern(operation, low, self._sorted((a, b)))

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
        inner = [arg for arg in args if isinstance(arg, Expr)]
        atoms = frozenset((serial,)).union(*(arg.atoms for arg in inner))
        self.atoms.append(
            Atom(
                serial,
                low,
                value,
                index,
                operation,
                args,
                atoms=atoms,
                size=1 + sum(arg.size for arg in inner),
                degree=max((arg.degree for arg in inner), default=1),
                open=operation == "element" or any(arg.open for arg in inner),
            )
        )
        if value is not None:
            self._of_value.setdefault(value, []).append(serial)
        expr = self.polynomial({((serial, 1),): 1})
        assert isinstance(expr, Expr)
        self._interned[key] = expr
        return expr

    def axis(self, value: ir.Value, axis: int, low: int = 0) -> Expr:
        """Return the unknown size of one axis of a value.

        Args:
            value: The value.
            axis: Which axis, counted from the front.
            low: A lower bound; it counts only when the atom is made, the first time.
        """
        return self._intern("dim", low, value=value, index=axis)

    def atoms_of(self, value: ir.Value) -> Sequence[int]:
        """Return the serial numbers of the sizes and elements of a value that are atoms."""
        return self._of_value.get(value, ())

    def atoms_in(self, dim: Dim) -> frozenset[int]:
        """Return the serial numbers of all atoms that an expression depends on."""
        return dim.atoms if isinstance(dim, Expr) else frozenset()

    def element(self, value: ir.Value, index: int, low: int | None = None) -> Expr:
        """Return one unknown element of an integer tensor.

        Args:
            value: The tensor.
            index: Which element, in row-major order.
            low: A lower bound, None if there is none; it counts only when the atom is made.
        """
        return self._intern("element", low, value=value, index=index)

    def low(self, dim: Dim) -> int | None:
        """Return a proven lower bound, None if there is none."""
        return dim if isinstance(dim, int) else dim.low

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
        wraps = isinstance(a, Expr) and a.may_wrap
        exact = None if wraps else divide_exactly(a, b)
        if exact is not None:
            return exact
        if isinstance(b, int) and b > 0 and not wraps:
            whole = {m: f // b * b for m, f in terms_of(a) if f % b == 0 or not m}
            multiple = self.polynomial(whole)
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
        wraps = isinstance(a, Expr) and a.may_wrap
        exact = None if wraps else divide_exactly(a, b)
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
        if len(parts) > _MOST_BROADCAST:  # not one list any more, which would be copied each time
            parts = dict.fromkeys(dim for dim in dims if dim != 1)
        for dim in parts:
            if isinstance(dim, int) or (self.low(dim) or 0) >= 2:
                return dim
        if len(parts) <= 1:
            return next(iter(parts), 1)
        lows = [self.low(dim) for dim in parts]
        low = min((low if low is not None else 0) for low in lows)
        return self._intern("broadcast", max(low, 0), self._sorted(tuple(parts)))

    def plainest(self, dims: Sequence[Dim]) -> Dim:
        """Return the shortest and oldest way to write what all of some expressions are."""
        return min(dims, key=_length)

    @staticmethod
    def _sorted(args: tuple[Dim, ...]) -> tuple[Dim, ...]:
        return tuple(sorted(args, key=lambda dim: (isinstance(dim, Expr), terms_of(dim))))

    def small(self, dim: Dim) -> bool:
        """Whether an expression is short enough to be worth carrying on."""
        if isinstance(dim, int):
            return True
        return (
            len(dim.terms) <= MOST_TERMS
            and dim.size <= MOST_PARTS
            and (dim.atom is None or self.atoms[dim.atom].operation not in _TOO_LARGE)
        )

    def countable(self, dim: Dim) -> bool:
        """Whether an expression for an element is short, and no more than an int64 can hold."""
        if isinstance(dim, int):
            return True
        whole = self.small(dim) and dim.degree <= _HIGHEST_COUNTED
        return whole and all(abs(factor) <= ENDLESS + 1 for _, factor in dim.terms)

    def text(self, dim: Dim) -> str:
        """Return an expression for messages, such as ``2*batch*seq + 1``."""
        if isinstance(dim, int):
            return str(dim)
        parts = []
        for monomial, factor in reversed(dim.terms):
            names = [self._atom_text(serial) for serial, power in monomial for _ in range(power)]
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


def _length(dim: Dim) -> tuple[bool, int, int, tuple[Term, ...]]:
    if isinstance(dim, int):
        return False, 0, 0, terms_of(dim)
    return True, len(dim.terms), dim.size, dim.terms
