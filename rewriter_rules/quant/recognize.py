"""Finds weights that a graph dequantises: `scale * (number - zero point)`, in any spelling.

The numbers may be unpacked by shifts, powers of two, divisions or remainders: they are what the
graph computes (`constant`), so that a quirk of an exporter is kept to the bit. The blocks are found
by looking for rows with equal scales and zero points.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from vlmpass.ir_tools.evaluate import Array
from vlmpass.ir_tools.weights import algebra
from vlmpass.ir_tools.weights.boxes import full
from vlmpass.ir_tools.weights.leaves import Expression
from vlmpass.rewriter_rules.quant.constant import Constants, broadcast, reshaped
from vlmpass.rewriter_rules.quant.expressions import Rows

__all__ = ["Quantized", "recognize"]

_READ_BYTES = 4 << 20
_LEAST_BLOCK = 16
_FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16)


@dataclass(frozen=True)
class Quantized:
    """A quantised weight of shape [inputs, outputs].

    Attributes:
        weight: The value of the dequantised weight.
        whole: The dequantised weight as a lazy tensor, to the bit what the graph computes.
        numbers: The stored numbers as a lazy tensor of integers, rows in block order.
        bits: 2, 4 or 8: the numbers are from 0 to 2**bits - 1.
        block: Rows with one scale and zero point.
        scales: Float array [inputs / block, outputs].
        zeros: Integer array of the same shape.
        order: Which row of the weight each row of `numbers` is; None if they are in order.
        dtype: The element type of the weight.
    """

    weight: ir.Value
    whole: Expression
    numbers: Expression
    bits: int
    block: int
    scales: Array
    zeros: Array
    order: tuple[int, ...] | None
    dtype: ir.DataType


def _producer(value: ir.Value | None, *op_types: str) -> ir.Node | None:
    node = value.producer() if value is not None else None
    return node if node is not None and not node.domain and node.op_type in op_types else None


def _below_casts(value: ir.Value | None) -> ir.Value | None:
    while (node := _producer(value, "Cast", "Identity")) is not None:
        value = node.inputs[0]
    return value


def _product(value: ir.Value | None) -> tuple[ir.Node, list[ir.Node]] | None:
    """Return the Mul that makes a weight, and what turns and reshapes its result, in order."""
    moves: list[ir.Node] = []
    while (node := _producer(value, "Cast", "Identity", "Reshape", "Transpose")) is not None:
        moves.insert(0, node)
        value = node.inputs[0]
    node = _producer(value, "Mul")
    return (node, moves) if node is not None else None


def _moved(
    part: Expression, moves: list[ir.Node], shape: tuple[int, ...], constants: Constants
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
        if node.op_type == "Reshape":
            part = reshaped(part, after.shape)
        elif node.op_type == "Transpose":
            default = tuple(reversed(range(len(part.shape))))
            part = algebra.transposed(part, tuple(node.attributes.get_ints("perm", default)))
    return part


def _difference(value: ir.Value | None) -> tuple[ir.Value, ir.Value] | None:
    """Return number and zero point of `number - zero point`, Casts around them ignored."""
    node = _producer(_below_casts(value), "Sub")
    if node is None:
        return None
    number, zero = (_below_casts(each) for each in node.inputs)
    return (number, zero) if number is not None and zero is not None else None


def _bits(value: ir.Value, constants: Constants) -> int | None:
    """Return how many bits numbers have, by the mask or remainder that made them."""
    top: ir.Value | None = value
    while (
        node := _producer(top, "Cast", "Reshape", "Transpose", "Identity", "Gather")
    ) is not None:
        top = node.inputs[0]
    node = _producer(top, "BitwiseAnd", "Mod")
    if node is None or node.attributes.get_int("fmod", 0) != 0:
        return None
    masks = [constants.small(each) for each in node.inputs]
    found = [int(mask.reshape(-1)[0]) for mask in masks if mask is not None and mask.size == 1]
    count = found[0] + (1 if node.op_type == "BitwiseAnd" else 0) if found else 0
    return {4: 2, 16: 4, 256: 8}.get(count)


def _chunks(expression: Expression) -> Iterator[tuple[int, Array]]:
    rows, columns = expression.shape
    step = max(1, _READ_BYTES // max(1, columns * expression.width))
    prepared = expression.prepared()
    for first in range(0, rows, step):
        last = min(rows, first + step)
        yield first, prepared.read(((first, last), (0, columns)))


def _row_keys(expression: Expression) -> list[bytes]:
    """Return a digest of every row."""
    if isinstance(expression, Rows):
        keys = _row_keys(expression.source)
        return [keys[row] for row in expression.rows]
    return [
        hashlib.blake2b(np.ascontiguousarray(row).tobytes(), digest_size=16).digest()
        for _, rows in _chunks(expression)
        for row in rows
    ]


def _block(keys: list[int]) -> int | None:
    """Return the longest block, at least 16 and a power of two, all of whose rows are equal."""
    size = 1
    while len(keys) % (2 * size) == 0:
        size *= 2
    while size >= _LEAST_BLOCK:
        if all(len(set(keys[i : i + size])) == 1 for i in range(0, len(keys), size)):
            return size
        size //= 2
    return None


def _layout(keys: list[int]) -> tuple[int, tuple[int, ...] | None] | None:
    """Return the block, and the order of rows that makes blocks of them if they lie apart."""
    block = _block(keys)
    if block is not None:
        return block, None
    order = sorted(range(len(keys)), key=lambda row: keys[row])
    block = _block([keys[row] for row in order])
    return (block, tuple(order)) if block is not None else None


def recognize(weight: ir.Value, constants: Constants) -> Quantized | None:
    """Return what a MatMul's weight is made of; None if it is no dequantisation of constants.

    Reads scales and zero points once, in pieces; the packed numbers are not read.
    """
    product = _product(weight)
    whole = constants.express(weight) if product is not None else None
    if product is None or whole is None or len(whole.shape) != 2 or whole.dtype not in _FLOATS:
        return None
    node, moves = product
    made = constants.express(node.outputs[0])
    for scale, other in (node.inputs, tuple(reversed(node.inputs))):
        pair = _difference(other)
        bits = _bits(pair[0], constants) if pair is not None else None
        if pair is None or bits is None or made is None:
            continue
        parts = [
            _moved(part, moves, made.shape, constants)
            for each in (pair[0], pair[1], scale)
            if (part := constants.express(each)) is not None
        ]
        known = [part for part in parts if part is not None]
        if len(known) == 3 and known[2].dtype == whole.dtype:
            numbers, zeros, scales = known
            layout = _layout(_row_numbers(scales, zeros))
            if layout is not None:
                found = _quantized(weight, whole, (numbers, zeros, scales), bits, layout)
                return found if _agrees(found) else None
    return None


def _agrees(found: Quantized) -> bool:
    """Whether numbers, zero points and scales give the graph's weight, in a row of every block."""
    count = len(found.scales)
    places = [i * found.block + i % found.block for i in range(count)]
    rows = [found.order[place] for place in places] if found.order is not None else places
    shape = (count, found.whole.shape[1])

    def at(expression: Expression, wanted: list[int]) -> Array:
        part = Rows(expression.dtype, shape, expression, tuple(wanted))
        return part.prepared().read(full(shape))

    unsigned = at(found.numbers, places).astype(np.int64) & ((1 << found.bits) - 1)
    wide = np.float64 if found.dtype == ir.DataType.FLOAT else np.float32
    made = (unsigned - found.zeros).astype(wide) * found.scales.astype(wide)
    graph = at(found.whole, rows)
    return bool(np.array_equal(made.astype(graph.dtype), graph))


def _row_numbers(scales: Expression, zeros: Expression) -> list[int]:
    """Return a number for every row; rows of equal scales and zero points have the same."""
    seen: dict[tuple[bytes, bytes], int] = {}
    pairs = zip(_row_keys(scales), _row_keys(zeros), strict=True)
    return [seen.setdefault(pair, len(seen)) for pair in pairs]


def _quantized(
    weight: ir.Value,
    whole: Expression,
    parts: tuple[Expression, Expression, Expression],
    bits: int,
    layout: tuple[int, tuple[int, ...] | None],
) -> Quantized:
    numbers, zeros, scales = parts
    block, order = layout
    rows, columns = whole.shape
    firsts = tuple((order or range(rows))[i] for i in range(0, rows, block))

    def at_blocks(expression: Expression) -> Array:
        shape = (len(firsts), columns)
        return Rows(expression.dtype, shape, expression, firsts).prepared().read(full(shape))

    if order is not None:
        numbers = Rows(numbers.dtype, numbers.shape, numbers, order)
    return Quantized(
        weight, whole, numbers, bits, block, at_blocks(scales), at_blocks(zeros), order, whole.dtype
    )
