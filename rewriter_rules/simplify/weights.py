"""Constant factors and summands moved into weights, which stay lazy."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx_ir import DataType, Node, TensorProtocol, Value

from vlmpass.ir_tools.graph.constants import constant_of
from vlmpass.ir_tools.rewrite import Declined, P, Replacement, Tape, refuse, rule
from vlmpass.ir_tools.weights import as_weight, scale
from vlmpass.rewriter_rules.simplify.known import rank

__all__ = ["WEIGHTS"]

WIDE = {"x": [DataType.FLOAT, DataType.DOUBLE]}
"""In narrower types a scaled weight loses bits that the product would have kept."""

VECTOR_BYTES = 1 << 20


def _vector(tensor: TensorProtocol, axis: int, axes: int) -> np.ndarray | None:
    """Return a constant that varies along one axis at most, as float64; None if it does not.

    Args:
        tensor: A constant that broadcasts against values of so many axes.
        axis: The axis, counted from the front.
        axes: How many axes there are.
    """
    sizes = [1] * (axes - tensor.shape.rank()) + [int(size) for size in tensor.shape.numpy()]
    thick = [at for at, size in enumerate(sizes) if size != 1]
    if len(sizes) != axes or thick not in ([], [axis]) or tensor.nbytes > VECTOR_BYTES:
        return None
    return tensor.numpy().astype(np.float64).reshape(-1)


def _own(weight: Value) -> TensorProtocol | Declined:
    """Return the tensor of a weight that nothing else uses."""
    tensor = constant_of(weight)
    if tensor is None:
        return refuse("{} is no constant", weight)
    return tensor if len(weight.uses()) == 1 else refuse("{} is also used elsewhere", weight)


def _scaled(op: Tape, weight: TensorProtocol, factor: np.ndarray, axis: int) -> Value | Declined:
    """Record a weight times a factor for each index of one axis.

    Where a product is infinite and its factors are not, sums of products become so, or NaN. Small
    weights are looked at here; large ones when they are written, which then ends.
    """
    shape = [-1 if at == axis else 1 for at in range(weight.shape.rank())]
    factor = factor.astype(weight.dtype.numpy()).reshape(shape)
    fits = np.isfinite(factor).all()
    if fits and weight.nbytes <= VECTOR_BYTES:
        numbers = weight.numpy()
        with np.errstate(all="ignore"):
            fits = (np.isfinite(numbers * factor) | ~np.isfinite(numbers)).all()
    if not fits:
        return refuse("a number times its factor is too large for {}", weight.dtype)
    return op.const(scale(as_weight(weight), factor), name="scaled")


def _for_each(count: int, *numbers: np.ndarray) -> bool:
    """Whether there is one number for all of so many channels or one for each: none widens it."""
    return all(each.size in (1, count) for each in numbers)


def _const(op: Tape, numbers: np.ndarray, like: DataType) -> Value | Declined:
    with np.errstate(over="ignore"):
        rounded = numbers.astype(like.numpy())
    if not np.isfinite(rounded).all():
        return refuse("a bias is not finite")
    return op.const(ir.tensor(rounded), name="bias")


def _scaled_conv(op: Tape, conv: Node, factor: np.ndarray, add: np.ndarray) -> Replacement:
    """Build Conv(x, w * factor, b * factor + add), one number for each output channel."""
    x, w, *rest = conv.inputs
    assert x is not None
    assert w is not None
    weight = _own(w)
    if isinstance(weight, Declined):
        return weight
    old = constant_of(rest[0]) if rest and rest[0] is not None else None
    if rest and rest[0] is not None and old is None:
        return refuse("the bias {} is no constant", rest[0])
    before = np.zeros(1) if old is None else old.numpy().astype(np.float64)
    channels = int(weight.shape.numpy()[0])
    if not _for_each(channels, before, factor, add):
        return refuse("there is not one number for each of {} channels", channels)
    scaled = _scaled(op, weight, np.broadcast_to(factor, channels), 0)
    if isinstance(scaled, Declined):
        return scaled
    inputs: list[Value | None] = [x, scaled]
    if old is not None or add.any():
        made = _const(op, np.broadcast_to(before * factor + add, channels), weight.dtype)
        if isinstance(made, Declined):
            return made
        inputs.append(made)
    return op.node("Conv", inputs, conv.attributes)[0]


CONV = P.Conv("x", ..., _node="conv")


@rule(
    P.BatchNormalization(CONV, "gain", "bias", "mean", "var", epsilon="eps", momentum=P.any),
    dtypes=WIDE,
)
def batch_norm_of_conv(
    op: Tape,
    x: Value,
    conv: Node,
    gain: TensorProtocol,
    bias: TensorProtocol,
    mean: TensorProtocol,
    var: TensorProtocol,
    eps: float,
) -> Replacement:
    """BatchNormalization(Conv(x, w, b)) -> Conv(x, w', b'), the weights scaled lazily."""
    g, b, m, v = (t.numpy().astype(np.float64) for t in (gain, bias, mean, var))
    factor = g / np.sqrt(v + eps)
    return _scaled_conv(op, conv, factor, b - m * factor)


@rule(P.Mul(CONV, "k"), dtypes=WIDE)
def scale_of_conv(op: Tape, x: Value, conv: Node, k: TensorProtocol) -> Replacement:
    """Conv(x, w, b) * k -> Conv(x, w * k, b * k), for one number or one for each channel."""
    axes = rank(x)
    factor = None if axes is None else _vector(k, 1, axes)
    if factor is None:
        return refuse("the factor is no number for each channel")
    return _scaled_conv(op, conv, factor, np.zeros(1))


@rule(P.Add(P.Conv("x", "w", "b?", _node="conv"), "k"))
def sum_of_conv(
    op: Tape, x: Value, w: TensorProtocol, b: TensorProtocol | None, conv: Node, k: TensorProtocol
) -> Replacement:
    """Conv(x, w, b) + k -> Conv(x, w, b + k), for one number or one for each channel."""
    axes = rank(x)
    add = None if axes is None else _vector(k, 1, axes)
    if add is None:
        return refuse("the summand is no number for each channel")
    before = np.zeros(1) if b is None else b.numpy().astype(np.float64)
    channels = int(w.shape.numpy()[0])
    if not _for_each(channels, before, add):
        return refuse("there is not one number for each of {} channels", channels)
    bias = _const(op, np.broadcast_to(before + add, channels), w.dtype)
    if isinstance(bias, Declined):
        return bias
    return op.node("Conv", [x, conv.inputs[1], bias], conv.attributes)[0]


@rule(P.Mul(P.MatMul("x", "w"), "k"), dtypes=WIDE)
def scale_of_matmul(op: Tape, x: Value, w: Value, k: TensorProtocol) -> Replacement:
    """MatMul(x, w) * k -> MatMul(x, w * k), for one number or one for each column."""
    weight = _own(w)
    if isinstance(weight, Declined):
        return weight
    axes = weight.shape.rank()
    factor = _vector(k, axes - 1, axes) if axes >= 2 and k.shape.rank() <= axes else None
    if factor is None:
        return refuse("the factor is no number for each column")
    columns = int(weight.shape.numpy()[-1])
    if not _for_each(columns, factor):
        return refuse("there is not one number for each of {} columns", columns)
    if k.shape.rank() == axes and rank(x) in (None, 1):
        return refuse("the factor may have more axes than the product")
    made = _scaled(op, weight, np.broadcast_to(factor, columns), axes - 1)
    return made if isinstance(made, Declined) else op.MatMul(x, made)


WEIGHTS = batch_norm_of_conv + scale_of_conv + sum_of_conv + scale_of_matmul
