"""GPTQ: what rounding one input's numbers loses, those of the inputs after it make good.

Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers"
(2022): with H the sum of the squares x x' of what a product takes, and H^-1 = U' U where U is upper
triangular, the error of input i over U[i, i], times U[i, j], is taken off the numbers of each later
input j. Inputs go by the size of their squares, the largest first; scales are found before, so that
blocks stay neighbours.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vlmpass.ir_tools.errors import VerifyError
from vlmpass.ir_tools.evaluate import Array
from vlmpass.ir_tools.run.input_squares import Doubles
from vlmpass.ir_tools.weights.boxes import full, strip
from vlmpass.ir_tools.weights.leaves import Expression
from vlmpass.rewriter_rules.quant.few_bits import Grid

__all__ = ["Squares", "solutions"]

_TOGETHER = 128
"""Inputs after which what they lost is taken off all the later ones at once."""
_LEAF = 64
_CHUNK_ELEMENTS = 4 << 20


@dataclass(frozen=True)
class Squares:
    """What is known of the inputs of a product.

    Attributes:
        whole: The sum of x x' over all that the product took.
        order: The inputs, those with the largest squares first.
        factor: The triangular U of those in that order, damped.
    """

    whole: Doubles
    order: npt.NDArray[np.intp]
    factor: Array

    @classmethod
    def of(cls, whole: Doubles, damping: float) -> Squares:
        """Factor the squares of inputs.

        Args:
            whole: The sum of x x'.
            damping: The share of its mean diagonal that is added to the diagonal.

        Raises:
            VerifyError: That is too little for inputs that follow from others.
        """
        sizes = np.diag(whole)
        order = np.argsort(-sizes, kind="stable")
        # H = R R' with R upper triangular has U = R^-1: a Cholesky factor from the other end.
        back = order[::-1]
        turned, diagonal = whole[np.ix_(back, back)], np.arange(len(sizes))
        seen = sizes > 0
        mean = np.mean(sizes[seen]) if seen.any() else np.float64(1)
        unseen = diagonal[~seen[back]]  # such inputs are rounded to the nearest, for themselves
        turned[unseen, unseen] = mean  # and the damping of the others stays what it is
        turned[diagonal, diagonal] += damping * mean
        try:
            lower: Doubles = np.asarray(np.linalg.cholesky(turned), np.float64)
        except np.linalg.LinAlgError as error:
            raise VerifyError(
                f"squares of inputs with a damping of {damping} have no factor",
                remedy="give a larger damping, or more inputs",
            ) from error
        _invert(lower)
        return cls(whole, order, np.ascontiguousarray(lower[::-1, ::-1], np.float32))

    def lost(self, off: Array) -> Doubles:
        """Return the squares of errors of outputs, whose weights are off by so much.

        Args:
            off: [inputs, outputs].
        """
        wide = off.astype(np.float64)
        squares: Doubles = (wide * (self.whole @ wide)).sum(0)
        return squares


def _invert(lower: Doubles) -> None:
    """Invert a lower triangular matrix in place, by halves."""
    count = len(lower)
    if count <= _LEAF:
        lower[...] = np.tril(np.linalg.inv(lower))
        return
    half = count // 2
    one, two, below = lower[:half, :half], lower[half:, half:], lower[half:, :half]
    _invert(one)
    _invert(two)
    below[...] = -(two @ (below @ one))


def solutions(
    matrix: Expression, grid: Grid, squares: Squares
) -> Iterator[tuple[Array, Array, Array]]:
    """Yield numbers, scales and zero points, each [outputs, ...], of some outputs after others.

    No output is further off than with numbers that are the nearest.

    Args:
        matrix: The weight.
        grid: How it is rounded.
        squares: Of what is multiplied with it.
    """
    inputs, outputs = matrix.shape[grid.axis], matrix.shape[1 - grid.axis]
    source, step = matrix.prepared(), max(1, _CHUNK_ELEMENTS // max(1, inputs))
    for first in range(0, outputs, step):
        last = min(outputs, first + step)
        part = source.read(strip(full(matrix.shape), 1 - grid.axis, first, last))
        groups = grid.grouped(part, grid.block)
        scales, zeros = grid.fit(groups)
        weight = np.ascontiguousarray(groups.reshape(last - first, -1)[:, :inputs].T)
        nearest = grid.numbers(groups, scales, zeros).reshape(last - first, -1)[:, :inputs].T
        found = _solved(weight, grid, squares, scales, zeros)
        block = np.arange(inputs) // grid.block
        steps, middle = scales[:, block].T, zeros[:, block].T
        off = (squares.lost((each - middle) * steps - weight) for each in (found, nearest))
        better = np.less(*off)
        yield np.where(better, found, nearest).T, scales, zeros


def _solved(weight: Array, grid: Grid, squares: Squares, scales: Array, zeros: Array) -> Array:
    """Return the numbers [inputs, outputs] of a weight, input by input."""
    factor, order = squares.factor, squares.order
    left, found = weight[order], np.empty_like(weight)
    for start in range(0, len(order), _TOGETHER):
        stop = min(len(order), start + _TOGETHER)
        errors = np.empty((stop - start, weight.shape[1]), np.float32)
        for at in range(start, stop):
            block = order[at] // grid.block
            scale, zero = scales[:, block], zeros[:, block]
            numbers = grid.numbers(left[at][:, None], scale, zero)[:, 0]
            error = (left[at] - (numbers - zero) * scale) / factor[at, at]
            left[at + 1 : stop] -= factor[at, at + 1 : stop, None] * error
            errors[at - start], found[order[at]] = error, numbers
        left[stop:] -= factor[start:stop, stop:].T @ errors
    return found
