"""Group normalisation of images whose channels come last, with what is added and its activation."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from vlmpass.ir_tools.graph.tape import Tape
from vlmpass.rewriter_rules.opset.build import cast, vector
from vlmpass.rewriter_rules.opset.queries import (
    dtype,
    integer,
    operand,
    operands,
    optional_input,
    rank,
    real,
)
from vlmpass.rewriter_rules.opset.table import CannotConvert, Outputs
from vlmpass.rewriter_rules.unfuse.unfused import floats, unfused

__all__ = ["CHANNELS"]

_BY_CHANNEL = 21
"""The opset from which GroupNormalization has a scale for each channel."""


@unfused("GroupNorm")
def unfuse_group_norm(op: Tape, node: ir.Node) -> Outputs:
    """GroupNorm(x, g, b) -> GroupNormalization(x, g, b), channels last.

    ONNX Runtime has it for GPUs alone; its documentation says what it computes.
    """
    floats(node, 0)
    return _normalized(op, node, operand(node, 0))


@unfused("SkipGroupNorm", outputs=2)
def unfuse_skip_group_norm(op: Tape, node: ir.Node) -> Outputs:
    """SkipGroupNorm(x, g, b, s, c) -> GroupNormalization(x + s + c, g, b), channels last.

    ONNX Runtime has it for GPUs alone; its documentation says what it computes.
    """
    floats(node, 0, 3, 4)
    x, skip, bias = operand(node, 0), operand(node, 3), optional_input(node, 4)
    if rank(skip) == 2:
        skip = op.Unsqueeze(skip, axes=[1, 2])
    total = op.Add(x, skip)
    total = total if bias is None else op.Add(total, bias)
    return [_normalized(op, node, total), total]


def _normalized(op: Tape, node: ir.Node, x: ir.Value) -> ir.Value:
    """Record what is normalised in float32, and its activation."""
    activation = integer(node, "activation")
    if rank(x) != 4 or activation not in (0, 1):
        raise CannotConvert(f"it has {rank(x)} axes and its activation is number {activation}")
    last = bool(integer(node, "channels_last", 1))
    wide = cast(op, x, ir.DataType.FLOAT)
    first = op.Transpose(wide, perm=[0, 3, 1, 2]) if last else wide
    found = _by_group(op, node, first)
    found = op.Mul(found, op.Sigmoid(found)) if activation else found
    return cast(op, op.Transpose(found, perm=[0, 2, 3, 1]) if last else found, dtype(x))


def _by_group(op: Tape, node: ir.Node, x: ir.Value) -> ir.Value:
    kind = ir.DataType.FLOAT
    groups, epsilon = integer(node, "groups"), real(node, "epsilon", 1e-5)
    scale, bias = (cast(op, each, kind) for each in operands(node, 3)[1:])
    if op.opsets[""] >= _BY_CHANNEL:
        return op.GroupNormalization(x, scale, bias, num_groups=groups, epsilon=epsilon)
    flat = op.Reshape(x, vector(op, [0, groups, -1]))
    one, zero = (op.const(np.full(groups, fill, np.float32), kind) for fill in (1, 0))
    normal = op.Reshape(op.InstanceNormalization(flat, one, zero, epsilon=epsilon), op.Shape(x))
    scale, bias = (op.Unsqueeze(each, axes=[1, 2]) for each in (scale, bias))
    return op.Add(op.Mul(normal, scale), bias)


CHANNELS = unfuse_group_norm + unfuse_skip_group_norm
