"""Arithmetic on shapes: the pieces that exporters take out of a shape one by one."""

from __future__ import annotations

from itertools import pairwise

from onnx_ir import Node, Value

from vlmpass.ir_tools.graph.constants import constant_of
from vlmpass.ir_tools.rewrite import P, Replacement, Tape, refuse, rule
from vlmpass.ir_tools.rewrite.constant_values import SMALL_BYTES
from vlmpass.rewriter_rules.simplify.known import FOREVER, rank

__all__ = ["SHAPES"]

KEEPS_SHAPE = (
    P.Cast
    | P.Identity
    | P.Relu
    | P.Sigmoid
    | P.Tanh
    | P.Neg
    | P.Abs
    | P.Exp
    | P.Sqrt
    | P.Erf
    | P.Gelu
    | P.Softmax
    | P.LayerNormalization
)


@rule(P.Shape(KEEPS_SHAPE("x", ...).shared, _node="shape"))
def shape_of_elementwise(op: Tape, x: Value, shape: Node) -> Replacement:
    """Shape(Cast(x)) -> Shape(x), and of other operators that keep the shape."""
    return op.node("Shape", [x], shape.attributes)[0]


@rule(P.Unsqueeze(P.Gather(P.vector("v"), "i", axis=0).shared, axes=0))
def unsqueeze_of_gather(op: Tape, v: Value, i: int) -> Replacement:
    """Unsqueeze(Gather(v, i), 0) -> Gather(v, [i]), of a vector."""
    return op.Gather(v, op.const([i]), axis=0)


def _taken_here(x: Value) -> tuple[Value, list[int]] | None:
    """Return the vector and the indices of a Gather whose result nothing else uses."""
    gather = x.producer()
    if gather is None or gather.op_type != "Gather" or len(x.uses()) != 1 or x.is_graph_output():
        return None
    v, index = gather.inputs
    tensor = None if index is None else constant_of(index)
    if v is None or rank(v) != 1 or tensor is None or tensor.nbytes > SMALL_BYTES:
        return None
    return (v, tensor.numpy().tolist()) if tensor.shape.rank() == 1 else None


@rule(P.Concat(P.several("xs", some=P.Gather), axis=0))
def concat_of_gathers(op: Tape, xs: tuple[Value, ...]) -> Replacement:
    """Concat(Gather(v, i), Gather(v, j)) -> Gather(v, i and j), of a vector."""
    for at, (one, two) in enumerate(pairwise(map(_taken_here, xs))):
        if one is not None and two is not None and one[0] is two[0]:
            both = op.Gather(one[0], op.const(one[1] + two[1]), axis=0)
            return both if len(xs) == 2 else op.Concat(*xs[:at], both, *xs[at + 2 :], axis=0)
    return refuse("no neighbours are taken from one vector")


@rule(P.Gather(P.Shape("x").shared, "indices", axis=0, _node="gather"), opset=(15, None))
def gather_of_shape(op: Tape, x: Value, indices: tuple[int, ...], gather: Node) -> Replacement:
    """Gather(Shape(x), [i, i + 1 ...]) -> Shape(x, start=i, end=j)."""
    index = gather.inputs[1]
    tensor = None if index is None else constant_of(index)
    if tensor is None or tensor.shape.rank() != 1:
        return refuse("a single index gives a scalar, not a vector")
    total = rank(x)
    first = indices[0] if indices else 0
    if indices != tuple(range(first, first + len(indices))) or not indices:
        return refuse("{} are not neighbours", indices)
    end = first + len(indices)
    if first < 0 and (total is None or end == 0):
        return op.Shape(x, start=first, end=None if end == 0 else end)
    return op.Shape(x, start=first, end=end if end != total else None)


@rule(P.Slice(P.Shape("x").shared, starts="start", ends="end", axes=P.any), opset=(15, None))
def slice_of_shape(op: Tape, x: Value, start: tuple[int, ...], end: tuple[int, ...]) -> Replacement:
    """Slice(Shape(x), i, j) -> Shape(x, start=i, end=j)."""
    return op.Shape(x, start=start[0], end=None if end[0] >= FOREVER else end[0])


SHAPES = (
    shape_of_elementwise
    + unsqueeze_of_gather
    + concat_of_gathers
    + gather_of_shape
    + slice_of_shape
)
