"""Nodes that do nothing: their first input is their output, element type and shape included."""

from __future__ import annotations

import numpy as np
from onnx_ir import DataType, Node, Value

from vlmpass.ir_tools.rewrite import P, Replacement, Tape, refuse, rule
from vlmpass.rewriter_rules.simplify.known import (
    FOREVER,
    broadcast_into,
    dim,
    matched,
    normal,
    rank,
    same_shape,
)

__all__ = ["NOTHING"]


@rule(P.Identity("x"))
def identity(op: Tape, x: Value) -> Replacement:
    """Identity(x) -> x."""
    return x


@rule(P.Dropout("x", ..., training_mode="training"), opset=(7, None))
def dropout(op: Tape, x: Value, training: bool | None) -> Replacement:
    """Dropout(x) -> x, when not training."""
    return refuse("it is training") if training else x


@rule(P.Cast("x", to="to"))
def cast_to_same(op: Tape, x: Value, to: DataType) -> Replacement:
    """Cast(x, to) -> x, when x is of that type."""
    return x if x.dtype == to else refuse("{} is {}, not {}", x, x.dtype or "of no known type", to)


@rule(P.Reshape("x", "shape"))
def reshape_to_same(op: Tape, x: Value, shape: tuple[int, ...]) -> Replacement:
    """Reshape(x, shape) -> x, when shape says 0, -1 or the size of the same axis of x."""
    if len(shape) != rank(x):
        return refuse("from {} to {} axes", rank(x), len(shape))
    moved = [at for at, size in enumerate(shape) if size > 0 and size != dim(op, x, at)]
    if moved or shape.count(-1) > 1:
        return refuse("{} is not known to have the shape {}", x, shape)
    return x


@rule(P.Transpose("x", perm="perm"))
def transpose_nowhere(op: Tape, x: Value, perm: tuple[int, ...]) -> Replacement:
    """Transpose(x, perm=0 1 2 ...) -> x."""
    return x if perm == tuple(range(len(perm))) else refuse("{} moves axes", perm)


@rule(P.Slice("x", starts="starts", ends="ends", axes="axes", steps="steps"))
def slice_everything(
    op: Tape,
    x: Value,
    starts: tuple[int, ...],
    ends: tuple[int, ...],
    axes: tuple[int, ...] | None,
    steps: tuple[int, ...] | None,
) -> Replacement:
    """Slice(x, 0, end or beyond) -> x."""
    if not matched(starts, ends, axes, steps):
        return refuse("starts, ends, axes and steps do not belong together")
    for at, (start, end) in enumerate(zip(starts, ends, strict=True)):
        size = dim(op, x, axes[at] if axes else at)
        beyond = FOREVER if not isinstance(size, int) else size
        if start != 0 or end < beyond or (steps and steps[at] != 1):
            return refuse("{}:{} of {} leaves something out", start, end, size or "some")
    return x


@rule(P.Pad("x", ..., pads="pads"))
def pad_nothing(op: Tape, x: Value, pads: tuple[int, ...]) -> Replacement:
    """Pad(x, 0 ... 0) -> x."""
    return x if not any(pads) else refuse("pads by {}", pads)


@rule((P.Concat | P.Max | P.Min | P.Sum | P.Mean)("x", axis=P.any))
def one_operand(op: Tape, x: Value) -> Replacement:
    """Concat(x) -> x, and Max, Min, Sum and Mean of one operand."""
    return x


@rule(P.Split("x", ..., _node="split"))
def split_in_one(op: Tape, x: Value, split: Node) -> Replacement:
    """Split(x) -> x, into one part."""
    parts = len(split.outputs)
    return x if parts == 1 else refuse("into {} parts", parts)


@rule(P.Concat("xs*", axis="axis"))
def concat_of_empty(op: Tape, xs: tuple[Value, ...], axis: int) -> Replacement:
    """Concat(x, empty, y) -> Concat(x, y)."""
    left = [x for x in xs if dim(op, x, axis) != 0]
    if len(left) == len(xs) or not left:
        return refuse("no operand is known to be empty")
    return op.Concat(*left, axis=axis)


@rule(P.Expand("x", "shape"))
def expand_to_same(op: Tape, x: Value, shape: tuple[int, ...]) -> Replacement:
    """Expand(x, shape) -> x, when x has all of shape already."""
    return x if broadcast_into(op, shape, x) else refuse("{} may grow to {}", x, shape)


@rule(P.Expand("x", P.any).named("y"))
def expand_without_effect(op: Tape, x: Value, y: Value) -> Replacement:
    """Expand(x, shape) -> x, when the result is known to have the shape of x."""
    return x if same_shape(x, y) else refuse("{} may be larger than {}", y, x)


@rule((P.Expand | P.Reshape)("x", P.Shape("x").shared))
def to_own_shape(op: Tape, x: Value) -> Replacement:
    """Reshape(x, Shape(x)) -> x, and Expand."""
    return x


@rule(P.Tile("x", "repeats"))
def tile_once(op: Tape, x: Value, repeats: tuple[int, ...]) -> Replacement:
    """Tile(x, 1 ... 1) -> x."""
    return x if set(repeats) <= {1} else refuse("repeats {} times", repeats)


@rule(P.Clip("x", min="low", max="high"))
def clip_nothing(op: Tape, x: Value, low: float | None, high: float | None) -> Replacement:
    """Clip(x, lowest, highest) -> x, when these are the limits of its type or absent."""
    if low is None and high is None:
        return x
    if x.dtype is None or x.dtype.is_floating_point():
        floor, ceiling = -np.inf, np.inf
    else:
        floor, ceiling = float(x.dtype.min), float(x.dtype.max)
    if (low is None or low <= floor) and (high is None or high >= ceiling):
        return x
    return refuse("clips to {} .. {}", low, high)


@rule(P.Mul("x", 1.0) | P.Div("x", 1.0) | P.Pow("x", 1.0) | P.Add("x", 0.0) | P.Sub("x", 0.0))
def neutral_operand(op: Tape, x: Value) -> Replacement:
    """x * 1 -> x, and x / 1, x ** 1, x + 0, x - 0."""
    return x


@rule(P.And("x", 1.0) | P.Or("x", 0.0) | P.Xor("x", 0.0))
def neutral_truth(op: Tape, x: Value) -> Replacement:
    """And(x, true) -> x, and Or(x, false), Xor(x, false)."""
    return x


@rule(P.Where(P.any, "x", "x").named("y"))
def where_either_is_the_same(op: Tape, x: Value, y: Value) -> Replacement:
    """Where(c, x, x) -> x, when c does not widen it."""
    return x if same_shape(x, y) else refuse("the condition may widen {}", x)


@rule(P.Flatten("x", axis="axis"))
def flatten_matrix(op: Tape, x: Value, axis: int) -> Replacement:
    """Flatten(x) -> x, when x is a matrix already."""
    flat = rank(x) == 2 and normal([axis], 2) == (1,)
    return x if flat else refuse("{} is no matrix flattened after axis 1", x)


NOTHING = (
    identity
    + dropout
    + cast_to_same
    + reshape_to_same
    + transpose_nowhere
    + slice_everything
    + pad_nothing
    + one_operand
    + split_in_one
    + concat_of_empty
    + expand_to_same
    + expand_without_effect
    + to_own_shape
    + tile_once
    + clip_nothing
    + neutral_operand
    + neutral_truth
    + where_either_is_the_same
    + flatten_matrix
)
