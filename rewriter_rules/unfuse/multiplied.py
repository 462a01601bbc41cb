"""Products with what ONNX Runtime fuses to them: turned and scaled operands, activations."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from vlmpass.ir_tools.graph.tape import Tape
from vlmpass.ir_tools.operators import Kind, traits_of
from vlmpass.ir_tools.operators.schema import in_force
from vlmpass.rewriter_rules.opset.build import scalar
from vlmpass.rewriter_rules.opset.queries import (
    attribute,
    dtype,
    integer,
    operand,
    operands,
    optional_input,
    rank,
    real,
    text,
)
from vlmpass.rewriter_rules.opset.table import CannotConvert, Outputs
from vlmpass.rewriter_rules.unfuse.attended import known_size, last_part
from vlmpass.rewriter_rules.unfuse.contrib import gelu
from vlmpass.rewriter_rules.unfuse.unfused import floats, unfused

__all__ = ["MULTIPLIED"]


@unfused("FusedMatMul")
def unfuse_fused_mat_mul(op: Tape, node: ir.Node) -> Outputs:
    """FusedMatMul(a, b) -> alpha * MatMul(Transpose(a), Transpose(b))."""
    return _product(op, node)


@unfused("TransposeMatMul")
def unfuse_transpose_mat_mul(op: Tape, node: ir.Node) -> Outputs:
    """TransposeMatMul(a, b) -> alpha * MatMul(Transpose(a), Transpose(b))."""
    return _product(op, node)


def _product(op: Tape, node: ir.Node) -> ir.Value:
    kind = floats(node, 0, 1)
    alpha = real(node, "alpha", 1.0)
    product = op.MatMul(*(_turned(op, node, index) for index in (0, 1)))
    return product if alpha == 1.0 else op.Mul(product, scalar(op, alpha, kind, "alpha"))


def _turned(op: Tape, node: ir.Node, index: int) -> ir.Value:
    """Record an operand with its first axis behind the others of its batch, its last two turned."""
    x, name = operand(node, index), "AB"[index]
    count = rank(x)
    order = [*range(count)]
    if integer(node, f"transBatch{name}") and count > 2:
        order = [*range(1, count - 1), 0, count - 1]
    if integer(node, f"trans{name}") and count > 1:
        order[-2:] = order[:-3:-1]
    return x if order == [*range(count)] else op.Transpose(x, perm=order)


@unfused("FusedGemm")
def unfuse_fused_gemm(op: Tape, node: ir.Node) -> Outputs:
    """FusedGemm(a, b, c) -> activation(Gemm(a, b, c))."""
    names = ("alpha", "beta", "transA", "transB")
    kept = {name: node.attributes[name] for name in names if name in node.attributes}
    made = op.node("Gemm", node.inputs, kept)[0]
    given = [attribute(node, f"activation_{name}") for name in ("alpha", "beta", "gamma")]
    return _active(op, node, made, [each.as_float() for each in given if each is not None])


@unfused("FusedConv")
def unfuse_fused_conv(op: Tape, node: ir.Node) -> Outputs:
    """FusedConv(x, w, b, z) -> activation(Conv(x, w, b) + z)."""
    ours = ("activation", "activation_params")
    kept = {name: each for name, each in node.attributes.items() if name not in ours}
    made, more = op.node("Conv", node.inputs[:3], kept)[0], optional_input(node, 3)
    given = attribute(node, "activation_params")
    numbers = [] if given is None else list(given.as_floats())
    return _active(op, node, made if more is None else op.Add(made, more), numbers)


def _active(op: Tape, node: ir.Node, x: ir.Value, numbers: Sequence[float]) -> ir.Value:
    """Record what an activation makes of a product."""
    name = text(node, "activation")
    if not name:
        return x
    wanted = _parameters(op, name)
    if wanted is None or len(numbers) < len(wanted):
        raise CannotConvert(f"its activation is {name}, with {len(numbers)} numbers")
    if name == "Clip":
        return op.Clip(x, *(scalar(op, number, dtype(x), "bound") for number in numbers[:2]))
    return op.node(name, [x], dict(zip(wanted, numbers, strict=False)))[0]


def _parameters(op: Tape, name: str) -> list[str] | None:
    """Return the names of an activation's numbers, in order; None if the standard has none such."""
    found, traits = in_force("", name, op.opsets[""]), traits_of("", name)
    if found is None or traits is None or traits.kind != Kind.ELEMENTWISE:
        return None
    if name == "Clip":
        return ["min", "max"]
    return sorted(found.attributes) if found.max_inputs == 1 else None


@unfused("GemmFastGelu")
def unfuse_gemm_fast_gelu(op: Tape, node: ir.Node) -> Outputs:
    """GemmFastGelu(x, w, b) -> Gelu(MatMul(x, w) + b, approximate=tanh).

    ONNX Runtime has it for GPUs alone; its documentation says what it computes.
    """
    floats(node, 0, 1, 2)
    product, bias = op.MatMul(*operands(node, 2)), optional_input(node, 2)
    return gelu(op, product if bias is None else op.Add(product, bias), "tanh")


@unfused("BiasSplitGelu")
def unfuse_bias_split_gelu(op: Tape, node: ir.Node) -> Outputs:
    """BiasSplitGelu(x, b) -> left half of x + b, times Gelu of the right half.

    ONNX Runtime has it for GPUs alone; its documentation says what it computes.
    """
    floats(node, 0, 1)
    whole = op.Add(*operands(node, 2))
    left, right = _halves(op, whole)
    return op.Mul(left, gelu(op, right, "none"))


def _halves(op: Tape, x: ir.Value) -> list[ir.Value]:
    half = known_size(x, -1, "the width of its input") // 2
    return [last_part(op, x, start, start + half) for start in (0, half)]


@unfused("BiasAdd")
def unfuse_bias_add(op: Tape, node: ir.Node) -> Outputs:
    """BiasAdd(x, b, s) -> x + b + s.

    ONNX Runtime has it for GPUs alone; its documentation says what it computes.
    """
    floats(node, 0, 1, 2)
    x, bias, skip = operands(node, 3)
    return op.Add(op.Add(x, bias), skip)


MULTIPLIED = (
    unfuse_fused_mat_mul
    + unfuse_transpose_mat_mul
    + unfuse_fused_gemm
    + unfuse_fused_conv
    + unfuse_gemm_fast_gelu
    + unfuse_bias_split_gelu
    + unfuse_bias_add
)
