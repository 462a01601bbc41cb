"""Operators on a tensor that is there in parts, cut along one axis: the same bits.

Each function builds one operator on a tape. It returns the operator's whole result, or its result
in parts again where the operator only passes the tensor on, or None where it has no exact form.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import onnx_ir as ir

from vlmpass.ir_tools.graph.constants import constant_of
from vlmpass.ir_tools.graph.read_attributes import int_of, ints_of
from vlmpass.ir_tools.graph.tape import Tape
from vlmpass.ir_tools.operators.schema import in_force
from vlmpass.ir_tools.operators.type_texts import tensor as tensor_text
from vlmpass.ir_tools.weights import as_weight, take

__all__ = ["FORMS", "Form", "Parts", "join"]


@dataclass(frozen=True)
class Parts:
    """A tensor in parts.

    Attributes:
        values: The parts, in order.
        axis: Along which they were cut.
        cuts: Where: part i holds [cuts[i], cuts[i + 1]) of that axis.
        rank: Of the tensor.
        dtype: Of the tensor.
        constant: Whether a runtime knows the parts before it runs.
    """

    values: tuple[ir.Value, ...]
    axis: int
    cuts: tuple[int, ...]
    rank: int
    dtype: ir.DataType
    constant: bool = True

    @property
    def extent(self) -> int:
        """The extent of the whole tensor along the axis."""
        return self.cuts[-1]


def _admits(tape: Tape, op_type: str, dtype: ir.DataType) -> bool:
    """Whether an operator of the opset in force takes tensors of a type as its variable T."""
    known = in_force("", op_type, tape.opsets.get("", 1))
    return known is not None and tensor_text(dtype) in known.allowed.get("T", ())


def _version(tape: Tape) -> int:
    return tape.opsets.get("", 1)


def _rank(value: ir.Value | None) -> int | None:
    return None if value is None or value.shape is None else len(value.shape)


def join(tape: Tape, parts: Parts) -> ir.Value | None:
    """Concat(parts) -> the whole tensor, when Concat takes its type."""
    if not _admits(tape, "Concat", parts.dtype):
        return None
    return tape.node("Concat", parts.values, {"axis": parts.axis})[0]


def _join_results(
    tape: Tape, results: Sequence[ir.Value], axis: int, rank: int | None
) -> ir.Value | None:
    """Join results along an axis counted from the end (below 0) or the start."""
    if axis < 0 and _version(tape) < 11:
        if rank is None:
            return None
        axis += rank
    return tape.node("Concat", results, {"axis": axis})[0]


def _slice(tape: Tape, value: ir.Value, axis: int, start: int, stop: int) -> ir.Value:
    """Cut a range out of a small operand: offline if it is constant."""
    tensor = constant_of(value)
    if tensor is not None:
        return tape.const(take(as_weight(tensor), axis, start, stop), name="cut")
    bounds = {"starts": [start], "ends": [stop], "axes": [axis]}
    return tape.node("Slice", [value], bounds)[0]


_CHOSEN_AS_IT_IS = {
    ir.DataType.FLOAT,
    ir.DataType.DOUBLE,
    ir.DataType.FLOAT16,
    ir.DataType.INT32,
    ir.DataType.INT64,
    ir.DataType.INT8,
    ir.DataType.UINT8,
}
# Where has no kernel for these on ONNX Runtime's CPU; float32 holds all their values.
_CHOSEN_AS_FLOAT = {
    ir.DataType.BFLOAT16,
    ir.DataType.INT16,
    ir.DataType.UINT16,
    ir.DataType.BOOL,
}


def _unsqueezed(tape: Tape, mask: ir.Value, indices: ir.Value, trailing: int) -> ir.Value | None:
    if trailing == 0:
        return mask
    axes: list[int] = list(range(-trailing, 0))
    if _version(tape) < 11:
        rank = _rank(indices)
        if rank is None:
            return None
        axes = list(range(rank, rank + trailing))
    return tape.Unsqueeze(mask, axes=axes)


def _local_indices(
    tape: Tape, indices: ir.Value, parts: Parts
) -> tuple[list[ir.Value], list[ir.Value]]:
    """Return the indices into every part, 0 where they belong to another, and what tells them.

    An index out of range stays out of range of the part next to it. The second list says where an
    index lies below each inner cut.
    """
    dtype = indices.dtype
    assert dtype is not None

    def number(value: int, name: str) -> ir.Value:
        return tape.const(value, dtype, name=name)

    zero = number(0, "zero")
    negative = tape.Less(indices, zero)
    counted = tape.Where(negative, tape.Add(indices, number(parts.extent, "extent")), indices)
    below = [tape.Less(counted, number(cut, "cut")) for cut in parts.cuts[1:-1]]
    local: list[ir.Value] = []
    for i, (start, stop) in enumerate(pairwise(parts.cuts)):
        from_end, from_start = number(parts.extent - stop, "shift"), number(-start, "shift")
        shifted = tape.Add(indices, tape.Where(negative, from_end, from_start))
        if i == 0:
            local.append(tape.Where(below[0], shifted, zero))
        elif i == len(below):
            local.append(tape.Where(below[-1], zero, shifted))
        else:
            within = tape.And(tape.Not(below[i - 1]), below[i])
            local.append(tape.Where(within, shifted, zero))
    return local, below


def gather(tape: Tape, node: ir.Node, index: int, parts: Parts) -> ir.Value | None:
    """Gather(W, i) -> Where(i < c, Gather(W0, i), Gather(W1, i - c)), for indices below 0 too."""
    axis = _gather_axis(node, index, parts.rank)
    indices = node.inputs[1]
    as_float = parts.dtype in _CHOSEN_AS_FLOAT
    chosen = ir.DataType.FLOAT if as_float else parts.dtype
    if axis != parts.axis or indices is None or _version(tape) < 9:
        return None
    if chosen not in _CHOSEN_AS_IT_IS or not _admits(tape, "Where", chosen):
        return None
    trailing = parts.rank - axis - 1
    if trailing and _version(tape) < 11 and _rank(indices) is None:
        return None
    if indices.dtype not in (ir.DataType.INT32, ir.DataType.INT64):
        indices = tape.Cast(indices, to=ir.DataType.INT64)
        indices.dtype = ir.DataType.INT64
    local, below = _local_indices(tape, indices, parts)
    rows = [
        tape.node("Gather", [part, where], {"axis": axis})[0]
        for part, where in zip(parts.values, local, strict=True)
    ]
    if as_float:
        rows = [tape.Cast(row, to=ir.DataType.FLOAT) for row in rows]
    result = rows[-1]
    for mask, row in reversed(list(zip(below, rows[:-1], strict=True))):
        condition = _unsqueezed(tape, mask, indices, trailing)
        if condition is None:
            return None
        result = tape.Where(condition, row, result)
    return tape.Cast(result, to=parts.dtype) if as_float else result


def _sums_in_one_order(parts: Parts) -> bool:
    """Whether the columns of a product are the same bits however many there are.

    On ONNX Runtime they are for a constant matrix on the right, which is packed ahead: measured
    over sizes, threads and levels of optimisation. They are not for a matrix on the left, for
    stacks of matrices, for float64, or for a matrix that is computed first.
    """
    return parts.rank == 2 and parts.constant and parts.dtype != ir.DataType.DOUBLE


def matmul(tape: Tape, node: ir.Node, index: int, parts: Parts) -> ir.Value | None:
    """MatMul(x, W) -> Concat(MatMul(x, W0), MatMul(x, W1)), cut by columns."""
    if parts.axis != _matmul_axis(node, index, parts.rank) or not _sums_in_one_order(parts):
        return None
    if node.inputs[0] is node.inputs[1]:
        return None
    results = [tape.MatMul(node.inputs[0], part) for part in parts.values]
    return _join_results(tape, results, -1, _rank(node.outputs[0]))


def gemm(tape: Tape, node: ir.Node, index: int, parts: Parts) -> ir.Value | None:
    """Gemm(x, W, c) -> Concat(Gemm(x, W0, c0), Gemm(x, W1, c1)), cut by columns of the result.

    The bias is cut likewise: adding it later would round once more.
    """
    if parts.axis != _gemm_axis(node, index, parts.rank) or not _sums_in_one_order(parts):
        return None
    first, _, bias = [*node.inputs, None][:3]
    if node.inputs[1] in (first, bias):
        return None
    biases = _biases(tape, bias, parts)
    if biases is None:
        return None
    results = [
        tape.node("Gemm", [first, part, cut], dict(node.attributes))[0]
        for part, cut in zip(parts.values, biases, strict=True)
    ]
    return _join_results(tape, results, 1, 2)


def _biases(tape: Tape, bias: ir.Value | None, parts: Parts) -> list[ir.Value | None] | None:
    """Return the bias of every part of the result, or None if its shape is not known enough."""
    count = len(parts.values)
    if bias is None:
        return [None] * count
    if bias.shape is None:
        return None
    if len(bias.shape) == 0 or bias.shape[-1] == 1:
        return [bias] * count
    if bias.shape[-1] != parts.extent:
        return None
    last = len(bias.shape) - 1
    return [_slice(tape, bias, last, start, stop) for start, stop in pairwise(parts.cuts)]


def transpose(tape: Tape, node: ir.Node, index: int, parts: Parts) -> Parts | None:
    """Transpose(W) -> Transpose(W0), Transpose(W1), cut along the axis that the old one becomes."""
    perm = ints_of(node, "perm", ()) or range(parts.rank - 1, -1, -1)
    values = tuple(
        tape.node("Transpose", [part], dict(node.attributes))[0] for part in parts.values
    )
    return replace(parts, values=values, axis=list(perm).index(parts.axis))


def elementwise(tape: Tape, node: ir.Node, index: int, parts: Parts) -> Parts | None:
    """Cast(W) -> Cast(W0), Cast(W1); likewise Identity."""
    values = tuple(
        tape.node(node.op_type, [part], dict(node.attributes))[0] for part in parts.values
    )
    return replace(parts, values=values, dtype=values[0].dtype or parts.dtype)


def dequantize(tape: Tape, node: ir.Node, index: int, parts: Parts) -> Parts | None:
    """DequantizeLinear(W, s, z) -> DequantizeLinear(W0, s0, z0), DequantizeLinear(W1, s1, z1)."""
    scale, zero = [*node.inputs, None][1:3]
    rank = _rank(scale)
    if index != 0 or scale is None or rank is None or (zero is not None and zero.shape is None):
        return None
    along = int_of(node, "axis", 1) % parts.rank == parts.axis
    block = max(1, int_of(node, "block_size", 0)) if along else 1
    values = []
    for part, (start, stop) in zip(parts.values, pairwise(parts.cuts), strict=True):
        scales: list[ir.Value | None] = [scale, zero]
        if rank == parts.rank and rank > 1:
            scales = _cut_all(tape, scales, parts.axis, start // block, -(-stop // block))
        elif rank == 1 and along:
            scales = _cut_all(tape, scales, 0, start, stop)
        operands = [part, *scales]
        values.append(tape.node("DequantizeLinear", operands, dict(node.attributes))[0])
    dtype = values[0].dtype or scale.dtype
    if dtype is None:
        return None
    return replace(parts, values=tuple(values), dtype=dtype, constant=False)


def _cut_all(
    tape: Tape, operands: Sequence[ir.Value | None], axis: int, start: int, stop: int
) -> list[ir.Value | None]:
    """Cut operands that have an extent above 1 along an axis."""
    return [
        operand
        if operand is None or operand.shape is None or operand.shape[axis] == 1
        else _slice(tape, operand, axis, start, stop)
        for operand in operands
    ]


def _gather_axis(node: ir.Node, index: int, rank: int) -> int | None:
    return int_of(node, "axis", 0) % rank if index == 0 else None


def _matmul_axis(node: ir.Node, index: int, rank: int) -> int | None:
    return 1 if index == 1 and rank == 2 else None


def _gemm_axis(node: ir.Node, index: int, rank: int) -> int | None:
    return int(not int_of(node, "transB", 0)) if index == 1 else None


@dataclass(frozen=True)
class Form:
    """How an operator is computed from parts.

    Attributes:
        build: Builds it on a tape.
        axis: Along which axis of the operand it must be cut, by input and rank; None means that it
            only passes the operand on.
    """

    build: Callable[[Tape, ir.Node, int, Parts], ir.Value | Parts | None]
    axis: Callable[[ir.Node, int, int], int | None] | None = None


FORMS = {
    "Gather": Form(gather, _gather_axis),
    "MatMul": Form(matmul, _matmul_axis),
    "Gemm": Form(gemm, _gemm_axis),
    "Transpose": Form(transpose),
    "Cast": Form(elementwise),
    "Identity": Form(elementwise),
    "DequantizeLinear": Form(dequantize),
}
"""By operator of the standard domain."""
