"""Finds weights that a graph dequantises: `scale * (number - zero point)`, in any spelling.

The numbers may be unpacked by shifts, powers of two, divisions or remainders: they are what the
graph computes (`constant`), so that a quirk of an exporter is kept to the bit. The blocks are found
by looking for rows with equal scales and zero points.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from vlmpass.ir_tools.evaluate import Array
from vlmpass.ir_tools.graph.read_attributes import int_of, ints_of, refers
from vlmpass.ir_tools.operators import keeping_order
from vlmpass.ir_tools.weights import casts, expressions
from vlmpass.ir_tools.weights.leaves import Expression, Held
from vlmpass.rewriter_rules.quant.blocks import any_block, arrange, chunks, group_rows
from vlmpass.rewriter_rules.quant.constant import Constants, broadcast, reshaped
from vlmpass.rewriter_rules.quant.expressions import Rows

__all__ = ["Odd", "Quantized", "recognize"]

_FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
_MOVES = keeping_order() | {"Cast", "Transpose"}
_BITS = (2, 4, 8)


@dataclass(frozen=True)
class Quantized:
    """A quantised weight of shape [inputs, outputs].

    Attributes:
        whole: The dequantised weight, to the bit what the graph computes.
        numbers: The stored numbers, integers from 0 to 2**bits - 1, rows in block order.
        bits: 2, 4 or 8, the least that holds them.
        block: Rows with one scale and zero point; the last block may be shorter.
        scales: The scales [blocks, outputs], in the type that the product is computed in.
        zeros: The zero points [blocks, outputs].
        span: The least and the greatest zero point; None if they are not whole numbers.
        order: Which row of the weight each row of `numbers` is; None if they are in order.
    """

    whole: Expression
    numbers: Expression
    bits: int
    block: int
    scales: Expression
    zeros: Expression
    span: tuple[int, int] | None
    order: Expression | None


@dataclass(frozen=True)
class Odd:
    """A weight that a graph dequantises in a way that has no blocked form.

    Attributes:
        whole: The dequantised weight as a lazy tensor, None if not even that can be said.
        reason: Why.
        remedy: What to do, where plain weights are no way out.
    """

    whole: Expression | None
    reason: str
    remedy: str = ""


def _producer(value: ir.Value | None, *op_types: str) -> ir.Node | None:
    node = value.producer() if value is not None else None
    return node if node is not None and not node.domain and node.op_type in op_types else None


def _below_casts(value: ir.Value | None) -> ir.Value | None:
    while (node := _producer(value, "Cast", "CastLike", "Identity")) is not None:
        value = node.inputs[0]
    return value


def _product(value: ir.Value | None) -> tuple[ir.Node, list[ir.Node]] | None:
    """Return the Mul that makes a weight, and what turns and reshapes its result, in order."""
    moves: list[ir.Node] = []
    while (node := _producer(value, *_MOVES)) is not None:
        moves.insert(0, node)
        value = node.inputs[0]
    node = _producer(value, "Mul")
    return (node, moves) if node is not None else None


def _moved(
    part: Expression, moves: Sequence[ir.Node], shape: tuple[int, ...], constants: Constants
) -> Expression | None:
    """Return a factor of the product as it lies in the weight."""
    try:
        part = broadcast(part, shape)
    except ValueError:
        return None
    for node in moves:
        after = constants.express(node.outputs[0])
        if after is None:
            return None
        if node.op_type == "Transpose":
            default = tuple(reversed(range(len(part.shape))))
            part = expressions.transposed(part, tuple(ints_of(node, "perm", default)))
        elif part.shape != after.shape:
            part = reshaped(part, after.shape)
    return part


def _difference(value: ir.Value | None) -> tuple[ir.Value, ir.Value] | None:
    """Return number and zero point of `number - zero point`, Casts around them ignored."""
    node = _producer(_below_casts(value), "Sub")
    if node is None:
        return None
    number, zero = (_below_casts(each) for each in node.inputs)
    return (number, zero) if number is not None and zero is not None else None


def _top(value: ir.Value, constants: Constants) -> int | None:
    """Return what numbers are less than, by the mask or remainder that made them.

    Numbers that are stored one by one are looked at themselves.
    """
    top: ir.Value | None = value
    while (node := _producer(top, *_MOVES, "Gather", "GatherND")) is not None:
        top = node.inputs[0]
    node = _producer(top, "BitwiseAnd", "Mod")
    if node is not None and refers(node):
        return None
    if node is None:
        stored = constants.express(value)
        if stored is None or not stored.dtype.is_integer() or len(stored.shape) != 2:
            return None
        span = _span(stored)
        return span[1] + 1 if span is not None and span[0] >= 0 else None
    if int_of(node, "fmod", 0) != 0:
        return None
    masks = [constants.small(each) for each in node.inputs]
    found = [int(mask.reshape(-1)[0]) for mask in masks if mask is not None and mask.size == 1]
    return found[0] + (1 if node.op_type == "BitwiseAnd" else 0) if found else None


def _span(expression: Expression) -> tuple[int, int] | None:
    """Return the least and the greatest number of a matrix; None if not all are whole numbers."""
    least, most = 0, 0
    for index, part in enumerate(chunks(expression)):
        if not np.array_equal(part, np.trunc(part)):
            return None
        low, high = int(part.min()), int(part.max())
        least, most = (min(least, low), max(most, high)) if index else (low, high)
    return least, most


def recognize(
    weight: ir.Value, constants: Constants, *, turned: bool, blocks: Sequence[int] | None
) -> Quantized | Odd:
    """Return what a linear layer's weight is made of.

    Args:
        weight: The weight as it enters the layer.
        constants: Of its scope.
        turned: Whether it enters as [outputs, inputs].
        blocks: Blocks to choose from, the last of which is filled up; None for whatever they are.

    Scales and zero points are read once, in pieces; of the packed numbers one row of every group.
    """
    product = _product(weight)
    whole = constants.express(weight)
    if whole is None:
        return Odd(None, "how it is unpacked is not understood")
    if len(whole.shape) != 2 or whole.dtype not in _FLOATS:
        return Odd(whole, f"it is no matrix but {whole.dtype.name.lower()}{list(whole.shape)}")
    if product is None:
        return Odd(_turn(whole, turned), "it is no product of scales and numbers")
    parts = _parts(product, constants)
    whole = _turn(whole, turned)
    if isinstance(parts, str):
        return Odd(whole, parts)
    bits, (numbers, zeros, scales) = parts[0], (_turn(each, turned) for each in parts[1])
    groups = group_rows(scales, zeros)
    found = arrange(groups, any_block(groups) if blocks is None else _least_filled(groups, blocks))
    if found is None:
        least = min(blocks) if blocks else 8
        return Odd(whole, f"its scales do not repeat in blocks of {least} rows or more")
    block, order = found
    result = _quantized(whole, (numbers, zeros, scales), bits, block, order)
    rounded = scales.dtype != whole.dtype
    wide = replace(result, scales=expressions.cast(result.scales, whole.dtype, True))
    for each in (wide, result) if rounded else (result,):
        if _agrees(each, every=rounded or result.span is None):
            return each
    return Odd(whole, "scales, zero points and numbers do not make up what it computes")


def _least_filled(groups: Sequence[int], blocks: Sequence[int]) -> list[int]:
    """Return blocks, those first that leave the least of the last one empty, then the longest."""
    return sorted(blocks, key=lambda block: (-len(groups) % block, -block))


def _turn(expression: Expression, turned: bool) -> Expression:
    return expressions.transposed(expression, (1, 0)) if turned else expression


def _parts(
    product: tuple[ir.Node, list[ir.Node]], constants: Constants
) -> tuple[int, list[Expression]] | str:
    """Return bits, and numbers, zero points and scales as they lie in the weight; or why not."""
    node, moves = product
    made = constants.express(node.outputs[0])
    assert made is not None
    for scale, other in (node.inputs, tuple(reversed(node.inputs))):
        pair = _difference(other)
        if pair is None:
            continue
        top = _top(pair[0], constants)
        if top is None:
            continue
        bits = next((bits for bits in _BITS if top <= 1 << bits), None)
        if bits is None:
            return f"its numbers go up to {top - 1}, which is more than 8 bits"
        parts = [
            _moved(part, moves, made.shape, constants)
            for each in (*pair, scale)
            if (part := constants.express(each)) is not None
        ]
        known = [part for part in parts if part is not None]
        if len(known) == 3 and len(known[0].shape) == 2:
            return bits, known
    return "it is no product of scales and differences of small integers"


def _quantized(
    whole: Expression,
    parts: tuple[Expression, Expression, Expression],
    bits: int,
    block: int,
    order: list[int] | None,
) -> Quantized:
    numbers, zeros, scales = parts
    rows = np.arange(whole.shape[0]) if order is None else np.array(order)
    index = None
    if order is not None:
        index = Held.of(ir.Tensor(rows))
        numbers = Rows(numbers.dtype, numbers.shape, numbers, index)
    firsts = rows[::block]
    zeros, scales = _rows_at(zeros, firsts), _rows_at(scales, firsts)
    return Quantized(whole, numbers, bits, block, scales, zeros, _span(zeros), index)


def _rows_at(expression: Expression, rows: Array) -> Rows:
    """Return some rows of a matrix."""
    index = Held.of(ir.Tensor(np.ascontiguousarray(rows)))
    return Rows(expression.dtype, (len(rows), *expression.shape[1:]), expression, index)


def _agrees(found: Quantized, *, every: bool) -> bool:
    """Whether numbers, zero points and scales give the graph's weight.

    One row of every block shows whether the parts are the right ones; whether a rounding on the way
    changes something shows in every row.
    """
    rows, columns = found.whole.shape
    places = np.arange(rows)
    if not every:
        firsts = places[:: found.block]
        places = np.minimum(firsts + np.arange(len(firsts)) % found.block, rows - 1)
    back = places if found.order is None else found.order.read(((0, rows),))[places]
    numbers, graph = _rows_at(found.numbers, places), _rows_at(found.whole, back)
    parts = (
        _rows_at(found.zeros, places // found.block),
        _rows_at(found.scales, places // found.block),
    )
    prepared = [each.prepared() for each in (numbers, *parts, graph)]
    step = max(1, (1 << 22) // max(1, columns * graph.width))
    for first in range(0, len(places), step):
        box = ((first, min(first + step, len(places))), (0, columns))
        number, zero, scale, wanted = (each.read(box) for each in prepared)
        unsigned = number.astype(np.int64) & ((1 << found.bits) - 1)
        wide = np.float64 if found.scales.dtype == ir.DataType.FLOAT else np.float32
        made = ((unsigned - zero).astype(wide) * scale.astype(wide)).astype(scale.dtype)
        made = casts.convert(made, found.scales.dtype, found.whole.dtype)
        if not np.array_equal(made, wanted):
            return False
    return True
