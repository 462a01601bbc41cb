"""Numbers of activations that an exporter rounded."""

from __future__ import annotations

import math

from onnx_ir import DataType, Node, TensorProtocol, Value

from vlmpass.ir_tools.rewrite import Declined, P, Replacement, Tape, rule
from vlmpass.rewriter_rules.fuse.spellings import cube, product
from vlmpass.rewriter_rules.restore.rounded import FLOAT_X, HELD, RESTORES, Exact, exactly, reading

__all__ = ["ACTIVATIONS"]

X = P("x")
DIVISOR, FACTOR = Exact(math.sqrt(2), "sqrt(2)"), Exact(math.sqrt(0.5), "sqrt(1/2)")
BEND = Exact(0.044715, "0.044715")
SLOPE = Exact(math.sqrt(2 / math.pi), "sqrt(2/pi)")
SHARPNESS = Exact(1.702, "1.702")


@rule(
    P.Erf((P.Mul | P.Div)(X, HELD, _node="scale")), fast_math=True, effects=RESTORES, dtypes=FLOAT_X
)
def restore_erf_scale(op: Tape, x: Value, c: TensorProtocol, scale: Node) -> Replacement:
    """Erf(x / c) -> Erf(x / sqrt(2)), when c is it, rounded; x * sqrt(1/2) too."""
    number = exactly(c, [[DIVISOR if scale.op_type == "Div" else FACTOR]])
    return number if isinstance(number, Declined) else op.Erf(reading(op, scale.op_type, x, number))


SLOPED = P.maybe.Cast("slope", to=DataType.FLOAT)
CUBE = P.Mul(cube(X).named("cube"), HELD)


@rule(P.Tanh(P.Mul(X + CUBE, SLOPED)), fast_math=True, effects=RESTORES, dtypes=FLOAT_X)
def restore_gelu_tanh(
    op: Tape, x: Value, cube: Value, c: TensorProtocol, slope: TensorProtocol
) -> Replacement:
    """Tanh((x + x ** 3 * c) * d) -> c is 0.044715 and d is sqrt(2 / pi), when rounded they are."""
    bend, steep = exactly(c, [[BEND]]), exactly(slope, [[SLOPE]])
    if isinstance(bend, Declined):
        return bend
    if isinstance(steep, Declined):
        return steep
    return op.Tanh(reading(op, "Mul", op.Add(x, reading(op, "Mul", cube, bend)), steep))


WEIGHED = P.Mul(P.Mul(X, X), HELD) | P.Mul(P.Mul(X, HELD), X)


@rule(P.Tanh(product(X, SLOPED, WEIGHED + 1.0)), fast_math=True, effects=RESTORES, dtypes=FLOAT_X)
def restore_gelu_tanh_of_product(
    op: Tape, x: Value, c: TensorProtocol, slope: TensorProtocol
) -> Replacement:
    """Tanh(x * d * (1 + x * x * c)) -> c is 0.044715 and d is sqrt(2 / pi), when rounded they are.

    It is built in one order of the several there are.
    """
    bend, steep = exactly(c, [[BEND]]), exactly(slope, [[SLOPE]])
    if isinstance(bend, Declined):
        return bend
    if isinstance(steep, Declined):
        return steep
    bent = op.Add(op.Mul(x, reading(op, "Mul", x, bend)), op.const(1.0))
    return op.Tanh(op.Mul(reading(op, "Mul", x, steep), bent))


@rule(P.Mul(X, P.Sigmoid(P.Mul(X, HELD))), fast_math=True, effects=RESTORES, dtypes=FLOAT_X)
def restore_quick_gelu(op: Tape, x: Value, c: TensorProtocol) -> Replacement:
    """x * sigmoid(x * c) -> x * sigmoid(x * 1.702), when c is it, rounded."""
    number = exactly(c, [[SHARPNESS]])
    if isinstance(number, Declined):
        return number
    return op.Mul(x, op.Sigmoid(reading(op, "Mul", x, number)))


ACTIVATIONS = (
    restore_erf_scale + restore_gelu_tanh + restore_gelu_tanh_of_product + restore_quick_gelu
)
