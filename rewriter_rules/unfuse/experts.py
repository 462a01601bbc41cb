"""MoE and QMoE: experts that look at all tokens, and count for those that are sent to them."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from vlmpass.ir_tools.graph.tape import Tape
from vlmpass.ir_tools.weights import expressions
from vlmpass.ir_tools.weights.weight import as_weight
from vlmpass.rewriter_rules.opset.build import cast, scalar, vector
from vlmpass.rewriter_rules.opset.queries import (
    attribute,
    constant,
    dtype,
    integer,
    operand,
    optional_input,
    rank,
    real,
    text,
)
from vlmpass.rewriter_rules.opset.table import CannotConvert, Outputs
from vlmpass.rewriter_rules.quant.emit import UNSIGNED
from vlmpass.rewriter_rules.unfuse.attended import chosen, known_size, last_part
from vlmpass.rewriter_rules.unfuse.contrib import gelu
from vlmpass.rewriter_rules.unfuse.stored_blocks import Blocks, dequantized
from vlmpass.rewriter_rules.unfuse.unfused import floats, unfused

__all__ = ["EXPERTS"]

_REST = 2**31 - 1
_FLOAT = ir.DataType.FLOAT


@dataclass(frozen=True)
class _Layer:
    """What each expert multiplies by and adds.

    Attributes:
        weight: (experts, outputs, inputs).
        bias: (experts, outputs); None for nothing.
    """

    weight: ir.Value
    bias: ir.Value | None


@unfused("MoE")
def unfuse_moe(op: Tape, node: ir.Node) -> Outputs:
    """MoE(x, r, v, a, w, b) -> the sum of shares(r) * (activation(x @ v^T + a) @ w^T + b).

    Every expert looks at every token, and all but the first k of each count for nothing. What no
    kernel for CPUs has, such as a third weight, is as the documentation says.
    """
    floats(node, *range(8))
    pairs = [(optional_input(node, i), optional_input(node, i + 1)) for i in (2, 4, 6)]
    layers = [_Layer(weight, bias) for weight, bias in pairs if weight is not None]
    return _mixed(op, node, layers, None)


@unfused("QMoE")
def unfuse_quantized_moe(op: Tape, node: ir.Node) -> Outputs:
    """QMoE(x, r, v, s, a, w, t, b) -> MoE(x, r, DequantizeLinear(v, s), a, (w, t), b)."""
    floats(node, 0, 1, 3, 4, 6, 7, 9, 10, 14)
    _understood(node)
    given = [i for i in range(3) if optional_input(node, 2 + 3 * i) is not None]
    layers = [_quantized(op, node, index) for index in given]
    return _mixed(op, node, layers, optional_input(node, 14))


def _understood(node: ir.Node) -> None:
    """Refuse what has no equal, or none that is proven.

    Raises:
        CannotConvert: The node has it.
    """
    kind = text(node, "quant_type", "int")
    if kind != "int":
        raise CannotConvert(f"its weights are quantised as {kind}")
    if integer(node, "weights_prepacked", -1):
        raise CannotConvert(
            "its bytes are laid out for one kind of device, unless weights_prepacked=0 says not"
        )
    if not integer(node, "normalize_routing_weights") and optional_input(node, 14) is None:
        raise CannotConvert(
            "its documentation and its kernel differ in shares that are not normalised"
        )


def _quantized(op: Tape, node: ir.Node, index: int) -> _Layer:
    """Record what one of the weights stands for.

    Raises:
        CannotConvert: It is no constant of such numbers.
    """
    weight, scales, bias = (optional_input(node, 2 + 3 * index + each) for each in range(3))
    stored = None if weight is None else constant(weight)
    if stored is None or scales is None or stored.dtype != ir.DataType.UINT8:
        raise CannotConvert("its weights are no constant bytes")
    common = integer(node, "expert_weight_bits", 4)
    bits = integer(node, f"fc{index + 1}_expert_weight_bits", common)
    source, (count, outputs, size) = as_weight(stored).expression, stored.shape.numpy()
    inputs = size * 8 // bits
    told = max(integer(node, "block_size"), 0)
    block, across = told or inputs, 0 if told else outputs
    if bits not in UNSIGNED or inputs % block:
        raise CannotConvert(f"its weights are of {bits} bits in blocks of {block} of {inputs}")
    rows = expressions.reshaped(source, (count * outputs, size))
    zeros = optional_input(node, 11 + index)
    packed = Blocks(count * outputs, inputs, bits, block, rows, scales, zeros, across)
    return _Layer(op.Reshape(dequantized(op, packed), vector(op, [count, outputs, inputs])), bias)


def _mixed(op: Tape, node: ir.Node, layers: list[_Layer], weights: ir.Value | None) -> ir.Value:
    """Record what experts find, added up by their shares, of which only those above zero count.

    Args:
        op: The tape.
        node: The node.
        layers: The first and the second, and the third if there is one.
        weights: What is shared out, where it is not what experts are chosen by.
    """
    if integer(node, "use_sparse_mixer"):
        raise CannotConvert("its sparse mixer drops experts by a threshold that is not said")
    x, shares = operand(node, 0), _shares(op, node, weights)
    rows = op.Reshape(x, vector(op, [1, -1, known_size(x, -1, "the width of its input")]))
    first, *third = (_applied(op, rows, layer) for layer in (layers[0], *layers[2:]))
    found = _applied(op, _active(op, node, first, third[0] if third else None), layers[1])
    counts, nothing = (
        op.Greater(shares, scalar(op, 0, _FLOAT, "zero")),
        scalar(op, 0, dtype(x), "zero"),
    )
    parts = chosen(op, counts, op.Mul(found, cast(op, shares, dtype(x))), nothing)
    total = op.ReduceSum(parts, vector(op, [0]), keepdims=0)
    return total if rank(x) == 2 else op.Reshape(total, op.Shape(x))


def _applied(op: Tape, x: ir.Value, layer: _Layer) -> ir.Value:
    """Record x @ weight^T + bias of every expert: (experts, tokens, outputs)."""
    found = op.MatMul(x, op.Transpose(layer.weight, perm=[0, 2, 1]))
    return found if layer.bias is None else op.Add(found, op.Unsqueeze(layer.bias, axes=[1]))


def _shares(op: Tape, node: ir.Node, weights: ir.Value | None) -> ir.Value:
    """Record the share of every expert, 0 for those that are not chosen: (experts, tokens, 1).

    Of experts that are chosen alike, the kernels take the last ones, and TopK the first.
    """
    router = cast(op, operand(node, 1), _FLOAT)
    last = known_size(router, 1, "the number of experts") - 1
    turned = op.Slice(router, *(vector(op, [each]) for each in (-1, -last - 2, 1, -1)))
    best, index = op.node("TopK", [turned, vector(op, [integer(node, "k", 1)])], {}, outputs=2)
    places = op.Sub(op.const(last), index)
    found = _of_chosen(op, node, router, best, places, weights)
    empty = op.ConstantOfShape(op.Shape(router), value=ir.tensor([0.0], dtype=_FLOAT))
    gates = op.ScatterElements(empty, places, found, axis=1)
    return op.Unsqueeze(op.Transpose(gates, perm=[1, 0]), axes=[2])


def _of_chosen(
    op: Tape,
    node: ir.Node,
    router: ir.Value,
    best: ir.Value,
    places: ir.Value,
    weights: ir.Value | None,
) -> ir.Value:
    """Record the shares of the experts that are chosen: (tokens, k)."""
    normalized = bool(integer(node, "normalize_routing_weights"))
    if weights is None and normalized:
        return op.Softmax(best, axis=-1)
    whole = op.Softmax(router, axis=-1) if weights is None else cast(op, weights, _FLOAT)
    found = op.GatherElements(whole, places, axis=1)
    if not normalized:
        return found
    return op.Div(found, op.ReduceSum(found, vector(op, [1]), keepdims=1))


def _active(op: Tape, node: ir.Node, x: ir.Value, third: ir.Value | None) -> ir.Value:
    """Record what activation makes of a first layer, and of a third one or its other half."""
    name, fusion = text(node, "activation_type", "relu"), integer(node, "swiglu_fusion")
    if name not in ("swiglu", "geglu"):
        found = _alone(op, name, x)
        return found if third is None else op.Mul(found, third)
    if (third is None) != bool(fusion):
        raise CannotConvert(f"{name} has its other half twice, or not at all")
    gate, up = (x, third) if third is not None else _halves(op, x, interleaved=fusion == 1)
    if name == "geglu":
        return op.Mul(gelu(op, gate, "tanh"), up)
    return _swiglu(op, node, gate, up)


def _halves(op: Tape, x: ir.Value, *, interleaved: bool) -> list[ir.Value]:
    half = known_size(x, -1, "the width of its first layer") // 2
    if not interleaved:
        return [last_part(op, x, start, start + half) for start in (0, half)]
    ends = ([vector(op, [each]) for each in (start, _REST, -1, 2)] for start in (0, 1))
    return [op.Slice(x, *each) for each in ends]


def _alone(op: Tape, name: str, x: ir.Value) -> ir.Value:
    match name:
        case "relu":
            return op.Relu(x)
        case "relu2":
            return op.Mul(op.Relu(x), op.Relu(x))
        case "gelu":
            return gelu(op, x, "tanh")
        case "silu":
            return op.Mul(x, op.Sigmoid(x))
        case "identity":
            return x
    raise CannotConvert(f"its activation is {name}")


def _swiglu(op: Tape, node: ir.Node, gate: ir.Value, up: ir.Value) -> ir.Value:
    """Record gate * sigmoid(alpha * gate) * (up + beta), both kept within a limit."""
    kind, limited = dtype(gate), attribute(node, "swiglu_limit") is not None
    limit = scalar(op, real(node, "swiglu_limit"), kind, "limit")
    later = bool(integer(node, "swiglu_limit_after_activation"))
    alpha, beta = (real(node, f"activation_{x}", y) for x, y in (("alpha", 1.0), ("beta", 0.0)))
    gate = op.Min(gate, limit) if limited and not later else gate
    up = op.Clip(up, op.Neg(limit), limit) if limited else up
    inner = gate if alpha == 1.0 else op.Mul(gate, scalar(op, alpha, kind, "alpha"))
    found = op.Mul(gate, op.Sigmoid(inner))
    found = op.Min(found, limit) if limited and later else found
    return op.Mul(found, up if beta == 0.0 else op.Add(up, scalar(op, beta, kind, "beta")))


EXPERTS = unfuse_moe + unfuse_quantized_moe
