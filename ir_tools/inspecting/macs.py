"""Multiply-accumulates of products, convolutions and attention, as polynomials of dimensions."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

import onnx_ir as ir

__all__ = ["Macs", "as_factor", "free_symbols", "macs_of"]

Dim = int | str
Factors = list[Dim]


@dataclass
class Macs:
    """A sum of products of dimensions.

    Attributes:
        terms: Coefficient by the symbols of the product, sorted; `()` is the plain number.
        unknown: Nodes whose shapes are not known well enough to count them.
    """

    terms: dict[tuple[str, ...], int] = field(default_factory=dict)
    unknown: int = 0

    def add(self, other: Macs) -> None:
        """Add another sum to this one."""
        for symbols, factor in other.terms.items():
            self.terms[symbols] = self.terms.get(symbols, 0) + factor
        self.unknown += other.unknown

    def at(self, sizes: Mapping[str, int]) -> int | None:
        """Return the number at given sizes; None if a symbol has none.

        Args:
            sizes: Size by symbol; dimensions that are expressions are evaluated.
        """
        total = 0
        for symbols, factor in self.terms.items():
            for symbol in symbols:
                size = ir.SymbolicDim(symbol).evaluate(dict(sizes))
                if not isinstance(size, int):
                    return None
                factor *= size
            total += factor
        return total

    @property
    def text(self) -> str:
        """The sum with exact coefficients, such as ``49152*batch*seq``; the largest term first."""
        ranked = sorted(self.terms.items(), key=lambda item: (-item[1], item[0]))
        return (
            " + ".join("*".join([str(n), *map(as_factor, symbols)]) for symbols, n in ranked) or "0"
        )


def free_symbols(dim: ir.SymbolicDim) -> frozenset[str]:
    """Return the symbols of a dimension: ``past + seq`` has two, a name that is no word is one."""
    try:
        return dim.free_symbols()
    except ValueError:
        return frozenset({dim.value or ""})


def as_factor(symbol: str) -> str:
    """Return a symbol, or an expression in parentheses, so that it can stand in a product."""
    return symbol if symbol.replace(".", "_").isidentifier() else f"({symbol})"


def macs_of(node: ir.Node) -> Macs | None:
    """Return the multiply-accumulates of a node; None for operators that are not counted.

    Args:
        node: A node whose inputs and outputs carry shapes.
    """
    count = _COUNTERS.get((node.domain, node.op_type))
    if count is None:
        return None
    try:
        products = count(node)
    except _UnknownShapeError:
        return Macs(unknown=1)
    macs = Macs()
    for product in products:
        factors = [factor for dim in product for factor in _factors(dim)]
        number = math.prod(dim for dim in factors if isinstance(dim, int))
        symbols = tuple(sorted(dim for dim in factors if isinstance(dim, str)))
        macs.add(Macs({symbols: number}))
    return macs


class _UnknownShapeError(Exception):
    """A dimension that the count needs is not known."""


def _dims(value: ir.Value | None) -> list[Dim]:
    if value is None:
        raise _UnknownShapeError
    shape = value.const_value.shape if value.const_value is not None else value.shape
    if shape is None:
        raise _UnknownShapeError
    return [dim if isinstance(dim, int) else _canonical(dim.value) for dim in shape]


@cache
def _canonical(text: str | None) -> Dim:
    """Return one spelling for equal expressions: exporters write past + seq both ways round."""
    if text is None:
        raise _UnknownShapeError
    try:
        dim = ir.SymbolicDim(text).simplify()
    except ValueError:  # a name that is no expression
        return text
    return dim if isinstance(dim, int) else dim.value or text


def _factors(dim: Dim) -> Factors:
    """Split a product of names and numbers."""
    if isinstance(dim, int):
        return [dim]
    if re.fullmatch(r"[\w.]+(\*[\w.]+)*", dim):
        return [int(part) if part.isdigit() else part for part in dim.split("*")]
    return [dim]


def _axis(dims: Sequence[Dim], axis: int) -> Dim:
    if not -len(dims) <= axis < len(dims):
        raise _UnknownShapeError
    return dims[axis]


def _value(values: Sequence[ir.Value | None], index: int) -> ir.Value | None:
    return values[index] if index < len(values) else None


def _matmul(node: ir.Node) -> Iterable[Factors]:
    return [[*_dims(node.outputs[0]), _axis(_dims(node.inputs[0]), -1)]]


def _fused_matmul(node: ir.Node) -> Iterable[Factors]:
    inner = -2 if node.attributes.get_int("transA", 0) else -1
    return [[*_dims(node.outputs[0]), _axis(_dims(node.inputs[0]), inner)]]


def _gemm(node: ir.Node) -> Iterable[Factors]:
    inner = 0 if node.attributes.get_int("transA", 0) else 1
    return [[*_dims(node.outputs[0]), _axis(_dims(node.inputs[0]), inner)]]


def _packed_matmul(node: ir.Node) -> Iterable[Factors]:
    return [[*_dims(node.outputs[0]), node.attributes.get_int("K", 0)]]


def _conv(weight: int) -> Callable[[ir.Node], Iterable[Factors]]:
    def count(node: ir.Node) -> Iterable[Factors]:
        return [[*_dims(node.outputs[0]), *_dims(node.inputs[weight])[1:]]]

    return count


def _conv_transpose(node: ir.Node) -> Iterable[Factors]:
    return [[*_dims(node.inputs[0]), *_dims(node.inputs[1])[1:]]]


def _attention(past: int, present: int) -> Callable[[ir.Node], Iterable[Factors]]:
    """Count scores and weighted values: queries × keys × (head size + value size), by head."""

    def count(node: ir.Node) -> Iterable[Factors]:
        query, keys = _dims(node.inputs[0]), _dims(_value(node.inputs, 1))
        made = _dims(node.outputs[0])
        cache = _value(node.outputs, present)
        held = _value(node.inputs, past)
        if cache is not None and cache.shape is not None:
            lengths: list[Dim] = [_axis(_dims(cache), -2)]
        elif held is not None:
            lengths = [_axis(keys, -2), _axis(_dims(held), -2)]
        else:
            lengths = [_axis(keys, -2)]
        return [[*side, length] for length in lengths for side in (query, made)]

    return count


def _einsum(node: ir.Node) -> Iterable[Factors]:
    equation = node.attributes.get_string("equation", "").replace(" ", "")
    inputs = equation.split("->")[0].split(",")
    if "." in equation or len(inputs) != len(node.inputs):
        raise _UnknownShapeError
    sizes: dict[str, Dim] = {}
    for letters, value in zip(inputs, node.inputs, strict=True):
        sizes.update(zip(letters, _dims(value), strict=False))
    return [list(sizes.values())]


def _recurrent(node: ir.Node) -> Iterable[Factors]:
    # Both weights are [directions, gates × hidden, inputs]; steps and batch come in either order.
    outer = _dims(node.inputs[0])[:2]
    return [[*outer, *_dims(weight)] for weight in node.inputs[1:3]]


_MS = "com.microsoft"
_COUNTERS: Mapping[tuple[str, str], Callable[[ir.Node], Iterable[Factors]]] = {
    ("", "MatMul"): _matmul,
    ("", "MatMulInteger"): _matmul,
    ("", "QLinearMatMul"): _matmul,
    ("", "Gemm"): _gemm,
    ("", "Conv"): _conv(1),
    ("", "ConvInteger"): _conv(1),
    ("", "QLinearConv"): _conv(3),
    ("", "ConvTranspose"): _conv_transpose,
    ("", "Attention"): _attention(4, 1),
    ("", "Einsum"): _einsum,
    ("", "LSTM"): _recurrent,
    ("", "GRU"): _recurrent,
    ("", "RNN"): _recurrent,
    (_MS, "FusedMatMul"): _fused_matmul,
    (_MS, "FusedGemm"): _gemm,
    (_MS, "FusedConv"): _conv(1),
    (_MS, "MatMulNBits"): _packed_matmul,
    (_MS, "MatMulBnb4"): _packed_matmul,
    (_MS, "MultiHeadAttention"): _attention(6, 1),
    (_MS, "GroupQueryAttention"): _attention(3, 1),
}
