"""Standard operators said in primitive ones, as opset conversion spells them."""

from __future__ import annotations

from onnx_ir import Node

from vlmpass.ir_tools.rewrite import P, Replacement, Tape, rule
from vlmpass.rewriter_rules.opset.steps import attention, elementwise, norm
from vlmpass.rewriter_rules.unfuse.unfused import spelled

__all__ = ["STANDARD"]


@rule(P.LayerNormalization(P.any, ..., _node="node", _outputs=3))
def unfuse_layer_normalization(op: Tape, node: Node) -> Replacement:
    """LayerNormalization(x, s, b) -> (x - mean(x)) / sqrt(var(x) + eps) * s + b."""
    return spelled(norm.layer_normalization, op, node)


@rule(P.RMSNormalization(P.any, ..., _node="node"))
def unfuse_rms_normalization(op: Tape, node: Node) -> Replacement:
    """RMSNormalization(x, s) -> x / sqrt(mean(x * x) + eps) * s."""
    return spelled(norm.rms_normalization, op, node)


@rule(P.Gelu(P.any, ..., _node="node"))
def unfuse_gelu(op: Tape, node: Node) -> Replacement:
    """Gelu(x) -> 0.5 * x * (1 + erf(x / sqrt 2)), and its tanh form."""
    return spelled(elementwise.gelu, op, node)


@rule(P.Swish(P.any, ..., _node="node"))
def unfuse_swish(op: Tape, node: Node) -> Replacement:
    """Swish(x) -> x * sigmoid(alpha * x)."""
    return spelled(elementwise.swish, op, node)


@rule(P.Mish(P.any, _node="node"))
def unfuse_mish(op: Tape, node: Node) -> Replacement:
    """Mish(x) -> x * tanh(softplus(x))."""
    return spelled(elementwise.mish, op, node)


@rule(P.HardSwish(P.any, _node="node"))
def unfuse_hard_swish(op: Tape, node: Node) -> Replacement:
    """HardSwish(x) -> x * HardSigmoid(x)."""
    return spelled(elementwise.hard_swish, op, node)


@rule(P.Attention(P.any, ..., _node="node", _outputs=4), opset=(18, None))
def unfuse_attention(op: Tape, node: Node) -> Replacement:
    """Attention(q, k, v, m) -> MatMul(Softmax(MatMul(q, k^T) * scale + m), v)."""
    return spelled(attention.attention, op, node)


@rule(P.RotaryEmbedding(P.any, ..., _node="node"), opset=(18, None))
def unfuse_standard_rotary_embedding(op: Tape, node: Node) -> Replacement:
    """RotaryEmbedding(x, cos, sin) -> Concat(a * cos - b * sin, a * sin + b * cos)."""
    return spelled(attention.rotary_embedding, op, node)


STANDARD = (
    unfuse_layer_normalization
    + unfuse_rms_normalization
    + unfuse_gelu
    + unfuse_swish
    + unfuse_mish
    + unfuse_hard_swish
    + unfuse_attention
    + unfuse_standard_rotary_embedding
)
