"""Normalisations that a runtime lacks, said by means and roots, or by one that it has."""

from __future__ import annotations

import onnx_ir as ir

from vlmpass.ir_tools.rewrite import P, Replacement, RuleSet, Tape, rule
from vlmpass.rewriter_rules.opset.build import cast
from vlmpass.rewriter_rules.opset.queries import dtype, integer, operand
from vlmpass.rewriter_rules.opset.steps import norm
from vlmpass.rewriter_rules.opset.table import Outputs
from vlmpass.rewriter_rules.unfuse.unfused import spelled

__all__ = ["STANDARDIZED"]


@rule(P.InstanceNormalization(P.any, ..., _node="node"), opset=(13, None))
def unfuse_instance_normalization(op: Tape, node: ir.Node) -> Replacement:
    """InstanceNormalization(x, s, b) -> (x - mean(x)) / sqrt(var(x) + eps) * s + b."""
    return spelled(norm.instance_normalization, op, node)


@rule(P.GroupNormalization(P.any, ..., _node="node"), opset=(18, None))
def group_to_instance_normalization(op: Tape, node: ir.Node) -> Replacement:
    """GroupNormalization(x, s, b) -> Reshape(InstanceNormalization(groups of x)) * s + b."""
    by_channel = op.opsets[""] >= 21
    build = norm.group_normalization if by_channel else norm.group_normalization_by_group
    return spelled(build, op, node)


def _log_softmax(op: Tape, node: ir.Node) -> Outputs:
    x, axes = operand(node, 0), [integer(node, "axis", -1)]
    centred = op.Sub(x, op.ReduceMax(x, axes=axes, keepdims=1))
    return op.Sub(centred, op.Log(op.ReduceSum(op.Exp(centred), axes=axes, keepdims=1)))


@rule(P.LogSoftmax(P.any, _node="node"), opset=(13, None))
def unfuse_log_softmax(op: Tape, node: ir.Node) -> Replacement:
    """LogSoftmax(x) -> x - max(x) - log(sum(exp(x - max(x))))."""
    return spelled(_log_softmax, op, node)


def _softmax(op: Tape, node: ir.Node) -> Outputs:
    x = operand(node, 0)
    kind = dtype(x)
    wide = kind if kind == ir.DataType.DOUBLE else ir.DataType.FLOAT
    found = op.LogSoftmax(cast(op, x, wide), axis=integer(node, "axis", -1))
    return cast(op, op.Exp(found), kind)


@rule(P.Softmax(P.any, _node="node"), opset=(13, None))
def softmax_to_log_softmax(op: Tape, node: ir.Node) -> Replacement:
    """Softmax(x) -> Exp(LogSoftmax(x)), in float32 where x has fewer bits."""
    return spelled(_softmax, op, node)


STANDARDIZED = RuleSet(
    (
        unfuse_log_softmax,
        softmax_to_log_softmax,
        unfuse_instance_normalization,
        group_to_instance_normalization,
    )
)
