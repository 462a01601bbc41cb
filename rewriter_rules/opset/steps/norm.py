"""Normalisations, with the statistics in the precision that the specification asks for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from vlmpass.ir_tools.graph.tape import Tape
from vlmpass.rewriter_rules.opset.build import (
    cast,
    flat,
    given_scalar,
    normalized,
    scalar,
    size_at,
    vector,
    without,
)
from vlmpass.rewriter_rules.opset.queries import (
    again,
    dtype,
    integer,
    operand,
    operands,
    optional_input,
    rank,
    real,
    used,
)
from vlmpass.rewriter_rules.opset.table import UNCHANGED, CannotConvert, Outputs, adapter, expansion

__all__: list[str] = []

_D = ir.DataType


def _stash(node: ir.Node, x: ir.Value) -> ir.DataType:
    """Return the type in which a node's statistics are computed."""
    return dtype(x) if dtype(x) == _D.DOUBLE else _asked(node)


def _asked(node: ir.Node) -> ir.DataType:
    """Return the type that a node gives its statistics out in."""
    return ir.DataType(integer(node, "stash_type", _D.FLOAT.value))


def _last_axes(node: ir.Node, x: ir.Value) -> list[int]:
    axis = integer(node, "axis", -1)
    return list(range(axis if axis < 0 else normalized(axis, rank(x)) - rank(x), 0))


def _mean(op: Tape, x: ir.Value, axes: Sequence[int]) -> ir.Value:
    """Record a mean over axes in the form that the tape's opset has."""
    if op.opsets[""] < 18:
        return op.ReduceMean(x, axes=axes)
    return op.ReduceMean(x, vector(op, axes, "axes"))


def _standardized(
    op: Tape, node: ir.Node, x: ir.Value, axes: Sequence[int]
) -> tuple[ir.Value, ir.Value, ir.Value, ir.Value]:
    """Record (x - mean) / sqrt(var + eps) along axes; and the mean, the variance and the root."""
    mean = _mean(op, x, axes)
    centred = op.Sub(x, mean)
    variance = _mean(op, op.Mul(centred, centred), axes)
    epsilon = given_scalar(op, node, "epsilon", 1e-5, dtype(x))
    deviation = op.Sqrt(op.Add(variance, epsilon))
    return op.Div(centred, deviation), mean, variance, deviation


@expansion("LayerNormalization", 17)
def layer_normalization(op: Tape, node: ir.Node) -> Outputs:
    """LayerNormalization(x, s, b) -> (x - mean) / sqrt(var + eps) * s + b."""
    x, scale, bias = operand(node, 0), operand(node, 1), optional_input(node, 2)
    wide = cast(op, x, _stash(node, x))
    normal, mean, _, deviation = _standardized(op, node, wide, _last_axes(node, x))
    scaled = op.Mul(cast(op, normal, dtype(x)), scale)
    y = scaled if bias is None else op.Add(scaled, bias)
    more = [mean, op.Reciprocal(deviation)] if used(node, 1) or used(node, 2) else []
    return [y, *(cast(op, each, _asked(node)) for each in more)]


@expansion("RMSNormalization", 23)
def rms_normalization(op: Tape, node: ir.Node) -> Outputs:
    """RMSNormalization(x, s) -> x / sqrt(mean(x * x) + eps) * s."""
    x, scale = operands(node, 2)
    stash, axes = _stash(node, x), _last_axes(node, x)
    wide = cast(op, x, stash)
    mean = _mean(op, op.Mul(wide, wide), axes)
    epsilon = given_scalar(op, node, "epsilon", 1e-5, stash)
    normal = op.Div(wide, op.Sqrt(op.Add(mean, epsilon)))
    # The output has the scale's type: the narrow product the specification asks for.
    return op.Mul(cast(op, normal, dtype(scale)), scale)


@adapter("GroupNormalization", 18, 21)
def scale_each_channel(op: Tape, node: ir.Node) -> Outputs:
    """GroupNormalization(x, s, b) -> GroupNormalization(x, repeat(s), repeat(b))."""
    groups = integer(node, "num_groups")
    repeated = _repeated(op, node, groups)
    return again(op, node, [node.inputs[0], *repeated])


def _repeated(op: Tape, node: ir.Node, groups: int) -> list[ir.Value]:
    """Record scale and bias of every group as those of every channel."""
    each = op.Div(size_at(op, operand(node, 0), 1), vector(op, [groups]))
    shape = op.Concat(vector(op, [groups]), each, axis=0)
    rows = vector(op, [groups, 1])
    return [flat(op, op.Expand(op.Reshape(operand(node, index), rows), shape)) for index in (1, 2)]


_INFERENCE = "export for inference"


@adapter("GroupNormalization", 21, 18)
def group_normalization(op: Tape, node: ir.Node) -> Outputs:
    """GroupNormalization(x, s, b) -> Reshape(InstanceNormalization(groups of x)) * s + b."""
    return _by_instances(op, node, operand(node, 1), operand(node, 2))


@expansion("GroupNormalization", 18)
def group_normalization_by_group(op: Tape, node: ir.Node) -> Outputs:
    """GroupNormalization(x, s, b) -> Reshape(InstanceNormalization(groups of x)) * s + b."""
    return _by_instances(op, node, *_repeated(op, node, integer(node, "num_groups")))


def _by_instances(op: Tape, node: ir.Node, scale: ir.Value, bias: ir.Value) -> ir.Value:
    x, groups = operand(node, 0), integer(node, "num_groups")
    stash, count = _stash(node, x), rank(x)
    wide = cast(op, op.Reshape(x, vector(op, [0, groups, -1])), stash)
    units = [op.const(np.full(groups, fill, stash.numpy()), stash) for fill in (1, 0)]
    epsilon = real(node, "epsilon", 1e-5)
    normal = cast(op, op.InstanceNormalization(wide, *units, epsilon=epsilon), dtype(x))
    whole = op.Reshape(normal, op.Shape(x))
    channels = vector(op, [-1] + [1] * (count - 2))
    return op.Add(op.Mul(whole, op.Reshape(scale, channels)), op.Reshape(bias, channels))


def instance_normalization(op: Tape, node: ir.Node) -> Outputs:
    """InstanceNormalization(x, s, b) -> (x - mean) / sqrt(var + eps) * s + b."""
    x, scale, bias = operands(node, 3)
    kind = dtype(x)
    if rank(x) < 3:  # no axes would mean all of them
        raise CannotConvert("its rank is below 3, and each instance one element")
    channels = _of_channels(op, x)
    wide = cast(op, x, _D.DOUBLE if kind == _D.DOUBLE else _D.FLOAT)
    normal, *_ = _standardized(op, node, wide, list(range(2, rank(x))))
    factor, offset = (cast(op, op.Reshape(each, channels), dtype(wide)) for each in (scale, bias))
    return cast(op, op.Add(op.Mul(normal, factor), offset), kind)


@adapter("BatchNormalization", 7, 9)
def every_activation(op: Tape, node: ir.Node) -> Outputs:
    """BatchNormalization(x, spatial=0) -> Reshape(BatchNormalization(Flatten(x)), Shape(x))."""
    if integer(node, "spatial", 1):
        return without(op, node, "spatial")
    if _trains(node):
        raise CannotConvert("training statistics of every activation cannot be kept", _INFERENCE)
    x, *rows = operands(node, 5)
    rows = [flat(op, each) for each in rows]
    (normal,) = again(op, node, [op.Flatten(x, axis=1), *rows], drop=("spatial",), outputs=1)
    return op.Reshape(normal, op.Shape(x))


def _trains(node: ir.Node) -> bool:
    """Whether a BatchNormalization trains: before opset 14, its outputs for statistics say so."""
    return any(output.name for output in node.outputs[1:])


@adapter("BatchNormalization", 9, 7)
def spatial_by_default(op: Tape, node: ir.Node) -> Outputs:
    """BatchNormalization(x) stays, when it does not train."""
    if _trains(node):
        raise CannotConvert("training has no defined form before opset 9", _INFERENCE)
    return UNCHANGED


@adapter("BatchNormalization", 9, 14)
def training_mode(op: Tape, node: ir.Node) -> Outputs:
    """BatchNormalization(x) with statistics -> BatchNormalization(x, training_mode=1)."""
    if not _trains(node):
        return UNCHANGED if len(node.outputs) == 1 else again(op, node, outputs=1)
    if used(node, 3) or used(node, 4):
        raise CannotConvert("the saved statistics do not exist from opset 14 on", _INFERENCE)
    return again(op, node, outputs=min(len(node.outputs), 3), training_mode=1)


@adapter("BatchNormalization", 14, 15)
def both_statistics(op: Tape, node: ir.Node) -> Outputs:
    """BatchNormalization(x) with one statistic -> the same with both."""
    return again(op, node, outputs=3) if len(node.outputs) == 2 else UNCHANGED


@adapter("BatchNormalization", 14, 9)
def batch_statistics(op: Tape, node: ir.Node) -> Outputs:
    """BatchNormalization(x, training_mode=1) -> (x - mean) / sqrt(var + eps) * s + b."""
    if not integer(node, "training_mode"):
        return again(op, node, drop=("training_mode",)) if node.attributes else UNCHANGED
    x, scale, bias, *old = operands(node, 5)
    channels, kind = _of_channels(op, x), dtype(x)
    wide = cast(op, x, _D.DOUBLE if kind == _D.DOUBLE else _D.FLOAT)
    axes = [axis for axis in range(rank(x)) if axis != 1]
    normal, *new, _ = _standardized(op, node, wide, axes)
    normal = cast(op, normal, kind)
    factor, offset = (cast(op, op.Reshape(each, channels), kind) for each in (scale, bias))
    running = [_running(op, node, *pair) for pair in zip(old, new, strict=True)]
    return [op.Add(op.Mul(normal, factor), offset), *running]


def _of_channels(op: Tape, x: ir.Value) -> ir.Value:
    """Record the shape in which one number for each channel broadcasts against x."""
    return vector(op, [-1] + [1] * (rank(x) - 2))


def _running(op: Tape, node: ir.Node, old: ir.Value, new: ir.Value) -> ir.Value:
    """Record a running statistic moved towards that of the batch."""
    kind, momentum, found = dtype(old), real(node, "momentum", 0.9), flat(op, new)
    keep, take = scalar(op, momentum, kind), scalar(op, 1 - momentum, kind)
    return op.Add(op.Mul(old, keep), op.Mul(cast(op, found, kind), take))
