"""ONNX Runtime's own operators said in standard ones, or in primitive ones below their opset."""

from __future__ import annotations

from onnx_ir import Node, Value

from vlmpass.ir_tools.rewrite import FloatAttr, P, Replacement, Tape, rule
from vlmpass.rewriter_rules.fuse.norms import simplified_to_rms_normalization
from vlmpass.rewriter_rules.fuse.spellings import ORT
from vlmpass.rewriter_rules.opset.steps import norm
from vlmpass.rewriter_rules.opset.steps.elementwise import spell_gelu
from vlmpass.rewriter_rules.simplify.known import FLOATS
from vlmpass.rewriter_rules.unfuse.unfused import layer_norm, spelled

__all__ = ["CONTRIB", "gelu"]

FLOAT_X = {"x": FLOATS}
RMS = P.SimplifiedLayerNormalization(P("x"), "scale", _node="node")


@rule(RMS)
def unfuse_simplified_layer_normalization(
    op: Tape, x: Value, scale: Value, node: Node
) -> Replacement:
    """SimplifiedLayerNormalization(x, s) -> x / sqrt(mean(x * x) + eps) * s."""
    return spelled(norm.rms_normalization, op, node)


@rule(
    P.SkipLayerNormalization(
        "a", "b", "scale", "beta?", "bias?", epsilon="eps", _domain=ORT, _outputs=4, _node="node"
    )
)
def unfuse_skip_layer_normalization(
    op: Tape,
    a: Value,
    b: Value,
    scale: Value,
    beta: Value | None,
    bias: Value | None,
    eps: FloatAttr,
    node: Node,
) -> Replacement:
    """SkipLayerNormalization(a, b, s, t, c) -> LayerNormalization(a + b + c, s, t)."""
    total = op.Add(a, b) if bias is None else op.Add(op.Add(a, b), bias)
    normal = layer_norm(op, total, scale, beta, eps)
    return (normal, None, None, total)[: len(node.outputs)]


@rule(
    P.SkipSimplifiedLayerNormalization(
        "a", "b", "scale", "bias?", epsilon="eps", _domain=ORT, _outputs=4, _node="node"
    )
)
def unfuse_skip_simplified_layer_normalization(
    op: Tape, a: Value, b: Value, scale: Value, bias: Value | None, eps: FloatAttr, node: Node
) -> Replacement:
    """SkipSimplifiedLayerNormalization(a, b, s) -> SimplifiedLayerNormalization(a + b, s)."""
    total = op.Add(a, b) if bias is None else op.Add(op.Add(a, b), bias)
    normal = op.SimplifiedLayerNormalization(total, scale, axis=-1, epsilon=eps)
    return (normal, None, None, total)[: len(node.outputs)]


def gelu(op: Tape, x: Value, approximate: str) -> Value:
    """Record the standard operator where the opset has it, else primitive ones.

    Args:
        op: The tape.
        x: What it is applied to.
        approximate: How, as the operator says it.
    """
    if op.opsets[""] >= 20:
        return op.Gelu(x, approximate=approximate)
    return spell_gelu(op, x, approximate)


@rule(P.Gelu("x", _domain=ORT), dtypes=FLOAT_X)
def unfuse_contrib_gelu(op: Tape, x: Value) -> Replacement:
    """com.microsoft::Gelu(x) -> Gelu(x)."""
    return gelu(op, x, "none")


@rule(P.BiasGelu("x", "bias", _domain=ORT), dtypes=FLOAT_X)
def unfuse_bias_gelu(op: Tape, x: Value, bias: Value) -> Replacement:
    """BiasGelu(x, b) -> Gelu(x + b)."""
    return gelu(op, op.Add(x, bias), "none")


@rule(P.FastGelu("x", "bias?", _domain=ORT), dtypes=FLOAT_X)
def unfuse_fast_gelu(op: Tape, x: Value, bias: Value | None) -> Replacement:
    """FastGelu(x, b) -> Gelu(x + b, approximate=tanh)."""
    return gelu(op, x if bias is None else op.Add(x, bias), "tanh")


@rule(P.QuickGelu("x", alpha="alpha", _domain=ORT), dtypes=FLOAT_X)
def unfuse_quick_gelu(op: Tape, x: Value, alpha: float) -> Replacement:
    """QuickGelu(x, alpha) -> x * sigmoid(alpha * x)."""
    inner = x if alpha == 1.0 else op.Mul(x, op.const(alpha, x.dtype))
    return op.Mul(x, op.Sigmoid(inner))


CONTRIB = (
    simplified_to_rms_normalization
    + unfuse_simplified_layer_normalization
    + unfuse_skip_layer_normalization
    + unfuse_skip_simplified_layer_normalization
    + unfuse_contrib_gelu
    + unfuse_bias_gelu
    + unfuse_fast_gelu
    + unfuse_quick_gelu
)
