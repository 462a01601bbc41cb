"""Element by element: attributes that became inputs, younger functions, integers and booleans."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from vlmpass.ir_tools.graph.tape import Tape
from vlmpass.rewriter_rules.opset.build import cast, flat, scalar, vector
from vlmpass.rewriter_rules.opset.queries import (
    again,
    attribute,
    dtype,
    integer,
    known_or_none,
    operand,
    operands,
    optional_input,
    real,
    text,
    used,
)
from vlmpass.rewriter_rules.opset.table import (
    HIGHER,
    UNCHANGED,
    CannotConvert,
    Outputs,
    adapter,
    expansion,
)

__all__ = ["spell_gelu"]

_D = ir.DataType
_INTEGERS = (_D.INT32, _D.UINT32, _D.INT64, _D.UINT64)
_LARGEST = float(np.finfo(np.float32).max)


@adapter("Dropout", 7, 10)
def mask_becomes_bool(op: Tape, node: ir.Node) -> Outputs:
    """Dropout(x) stays, when nothing reads its mask."""
    _refuse_mask(node)
    return UNCHANGED


def _refuse_mask(node: ir.Node) -> None:
    if used(node, 1):
        raise CannotConvert(
            "runtimes differ on what its mask holds below opset 12: ONNX Runtime gives false,"
            " the reference evaluator true",
            f"take the output {node.outputs[1].name} away from what reads it",
        )


@adapter("Dropout", 10, 12)
def ratio_becomes_input(op: Tape, node: ir.Node) -> Outputs:
    """Dropout(x, ratio=r) -> Dropout(x, r)."""
    _refuse_mask(node)
    ratio = attribute(node, "ratio")
    if ratio is None:
        return UNCHANGED
    x = operand(node, 0)
    amount = scalar(op, ratio.as_float(), dtype(x), "ratio")
    return again(op, node, [x, amount], drop=("ratio",))


@adapter("Dropout", 12, 10)
def ratio_of_training(op: Tape, node: ir.Node) -> Outputs:
    """Dropout(x, r) -> Dropout(x), or Where(RandomUniformLike(x) < r, 0, x / (1 - r)) to train."""
    training, x = optional_input(node, 2), operand(node, 0)
    fixed = known_or_none(training)
    if training is not None and (fixed is None or fixed.reshape(-1)[0]):
        return _dropped(op, node, x, training)
    if not used(node, 1):
        return again(op, node, [x], drop=("seed",), outputs=1)
    return [op.Identity(x), op.Expand(op.const(np.array([True])), op.Shape(x))]


def _dropped(op: Tape, node: ir.Node, x: ir.Value, training: ir.Value) -> Outputs:
    given = optional_input(node, 1)
    ratio = scalar(op, 0.5, _D.FLOAT, "ratio") if given is None else op.Cast(given, to=_D.FLOAT)
    seed = attribute(node, "seed")
    start = None if seed is None else float(seed.as_int())
    noise = op.RandomUniformLike(x, dtype=_D.FLOAT, seed=start)
    kept = op.Not(op.And(training, op.Less(noise, ratio)))
    left = op.Sub(scalar(op, 1, _D.FLOAT), ratio)
    scaled = op.Where(training, op.Div(x, op.Cast(left, to=dtype(x))), x)
    return [op.Where(kept, scaled, scalar(op, 0, dtype(x))), kept]


@adapter("Dropout", 10, 7)
def mask_becomes_number(op: Tape, node: ir.Node) -> Outputs:
    """Dropout(x) stays, when nothing reads its mask."""
    if used(node, 1):
        raise CannotConvert("its mask is not of type bool before opset 10", HIGHER)
    return UNCHANGED


@adapter("Gemm", 11, 9)
def addend_required(op: Tape, node: ir.Node) -> Outputs:
    """Gemm(a, b) -> Gemm(a, b, 0)."""
    a = operand(node, 0)
    if optional_input(node, 2) is not None:
        return UNCHANGED
    return again(op, node, [*node.inputs[:2], scalar(op, 0, dtype(a), "C")])


@adapter("Pow", 12, 7)
def one_type(op: Tape, node: ir.Node) -> Outputs:
    """Pow(x, y) -> Pow(x, Cast(y)), or in double where x is an integer."""
    x, y = operands(node, 2)
    if dtype(x) == dtype(y) and dtype(x).is_floating_point():
        return UNCHANGED
    if _fits(y, dtype(x)):
        return op.Pow(x, op.Cast(y, to=dtype(x)))
    if dtype(x) in (_D.INT64, _D.UINT64) and not dtype(y).is_floating_point():
        return _whole_power(op, x, y)
    return op.Cast(op.Pow(op.Cast(x, to=_D.DOUBLE), op.Cast(y, to=_D.DOUBLE)), to=dtype(x))


def _fits(exponent: ir.Value, kind: ir.DataType) -> bool:
    """Whether a floating type holds all that an exponent of another type may be."""
    given = dtype(exponent)
    if not kind.is_floating_point() or (given == _D.DOUBLE and kind != _D.DOUBLE):
        return False
    fixed = known_or_none(exponent)
    small = fixed is not None and bool((np.abs(fixed) < 2048).all())
    return small or given.bitwidth <= kind.bitwidth // 2


def _whole_power(op: Tape, x: ir.Value, y: ir.Value) -> ir.Value:
    """Record x to the power of y by squaring; to a negative power, what is left of a fraction.

    A power of whole numbers of 64 bits may be larger than what double holds exactly.
    """
    fixed, kind = known_or_none(y), dtype(x)
    nonnegative = fixed is not None and bool((fixed >= 0).all())
    most = 6 if fixed is None else int(np.abs(fixed).max(initial=1)).bit_length() or 1
    two, one = scalar(op, 2, _D.INT64), scalar(op, 1, kind)
    given = op.Cast(y, to=_D.INT64)
    rest, square, power = given if nonnegative else op.Abs(given), x, one
    for step in range(min(most, 6)):
        square = op.Mul(square, square) if step else x
        half = op.Div(rest, two)
        odd = op.Cast(op.Sub(rest, op.Mul(half, two)), to=kind)
        power = op.Mul(power, op.Add(op.Mul(odd, op.Sub(square, one)), one))
        rest = half
    if fixed is None or most > 6:
        square = op.Mul(square, square)
        # From the 64th power on, only 0, 1 and -1 do not overflow.
        more = op.Cast(op.Cast(rest, to=_D.BOOL), to=kind)
        power = op.Mul(power, op.Add(op.Mul(more, op.Sub(square, one)), one))
    if nonnegative:
        return power
    units = op.Equal(op.Cast(op.Mul(x, x), to=_D.INT64), scalar(op, 1, _D.INT64))
    kept = op.Or(units, op.Not(op.Less(given, scalar(op, 0, _D.INT64))))
    return op.Mul(power, op.Cast(kept, to=kind))


@expansion("Mod", 10)
def remainder(op: Tape, node: ir.Node) -> Outputs:
    """Mod(x, y) of integers -> x - x / y * y, plus y where its sign is another and it is not 0."""
    kind = dtype(operand(node, 0))
    if not kind.is_integer():
        raise CannotConvert("no older operator computes a remainder of floats exactly", HIGHER)
    wide = kind if kind.bitwidth >= 32 else _D.INT32  # runtimes divide nothing narrower
    x, y = (cast(op, each, wide) for each in operands(node, 2))
    return cast(op, _remainder(op, x, y, bool(integer(node, "fmod"))), kind)


def _remainder(op: Tape, x: ir.Value, y: ir.Value, truncated: bool) -> ir.Value:
    kind = dtype(x)
    rest = op.Sub(x, op.Mul(op.Div(x, y), y))
    if truncated or not kind.is_signed():
        return rest
    zero = scalar(op, 0, kind)
    other = op.Xor(op.Less(rest, zero), op.Less(y, zero))
    moved = op.And(other, op.Not(op.Equal(rest, zero)))
    return op.Where(moved, op.Add(rest, y), rest)


@adapter("Equal", 19, 13)
def equal_texts(op: Tape, node: ir.Node) -> Outputs:
    """Equal(a, b) of strings -> Equal of their places among the Unique ones; opset 11."""
    a, b = operands(node, 2)
    if dtype(a) != _D.STRING:
        return UNCHANGED
    wide = [op.Expand(a, op.Shape(b)), op.Expand(b, op.Shape(a))]
    places = _unique_places(op, *[flat(op, each) for each in wide])
    return op.Reshape(op.Equal(*places), op.Shape(wide[0]))


def _unique_places(op: Tape, a: ir.Value, b: ir.Value) -> list[ir.Value]:
    """Record where the texts of two vectors of one length stand among the unique ones of both."""
    both, half = op.Concat(a, b, axis=0), op.Shape(a)
    places = op.node("Unique", [both], {"sorted": 0}, outputs=3)[2]
    first = op.Slice(places, vector(op, [0]), half)
    return [first, op.Slice(places, half, op.Shape(both))]


@adapter("Mod", 28, 13)
def floored(op: Tape, node: ir.Node) -> Outputs:
    """Mod(a, b) -> Mod(a, b, fmod=1), moved to the sign of b, for floating types.

    A rest of 0 takes the divisor's sign; any other of the wrong sign moves by one divisor.
    """
    x, y = operands(node, 2)
    if integer(node, "fmod") or not dtype(x).is_floating_point():
        return UNCHANGED
    rest, zero = op.Mod(x, y, fmod=1), scalar(op, 0, dtype(x))
    against = op.Xor(op.Less(rest, zero), op.Less(y, zero))
    signed = op.Where(op.Less(y, zero), scalar(op, -0.0, dtype(x)), zero)
    moved = op.Where(against, op.Add(rest, y), rest)
    return op.Where(op.Equal(rest, zero), signed, moved)


@expansion("Mish", 18)
def mish(op: Tape, node: ir.Node) -> Outputs:
    """Mish(x) -> x * tanh(softplus(x))."""
    x = operand(node, 0)
    return op.Mul(x, op.Tanh(op.Softplus(x)))


@expansion("Swish", 24)
def swish(op: Tape, node: ir.Node) -> Outputs:
    """Swish(x) -> x * sigmoid(alpha * x)."""
    x, alpha = operand(node, 0), real(node, "alpha", 1.0)
    inner = x if alpha == 1.0 else op.Mul(x, scalar(op, alpha, dtype(x), "alpha"))
    return op.Mul(x, op.Sigmoid(inner))


@expansion("HardSwish", 14)
def hard_swish(op: Tape, node: ir.Node) -> Outputs:
    """HardSwish(x) -> x * HardSigmoid(x, alpha=1/6, beta=0.5)."""
    x = operand(node, 0)
    return op.Mul(x, op.HardSigmoid(x, alpha=1 / 6, beta=0.5))


@expansion("Gelu", 20)
def gelu(op: Tape, node: ir.Node) -> Outputs:
    """Gelu(x) -> 0.5 * x * (1 + erf(x / sqrt 2)), or its tanh form if that is asked for."""
    return spell_gelu(op, operand(node, 0), text(node, "approximate", "none"))


def spell_gelu(op: Tape, x: ir.Value, approximate: str) -> ir.Value:
    """Record Gelu in primitive operators.

    Args:
        op: The tape.
        x: A float tensor.
        approximate: ``none`` or ``tanh``.
    """
    kind = dtype(x)
    one, half = scalar(op, 1, kind, "one"), scalar(op, 0.5, kind, "half")
    if approximate == "tanh":
        cube = op.Mul(op.Mul(x, op.Mul(x, x)), scalar(op, 0.044715, kind, "cubic"))
        factor = scalar(op, np.sqrt(2 / np.pi), kind, "factor")
        bent = op.Tanh(op.Mul(factor, op.Add(x, cube)))
    else:
        bent = op.Erf(op.Mul(x, scalar(op, np.sqrt(0.5), kind, "root_half")))
    return op.Mul(op.Mul(half, x), op.Add(one, bent))


@expansion("GreaterOrEqual", 12)
def greater_or_equal(op: Tape, node: ir.Node) -> Outputs:
    """GreaterOrEqual(a, b) -> Or(Greater(a, b), Equal(a, b))."""
    x, y = operands(node, 2)
    return op.Or(op.Greater(x, y), op.Equal(x, y))


@expansion("LessOrEqual", 12)
def less_or_equal(op: Tape, node: ir.Node) -> Outputs:
    """LessOrEqual(a, b) -> Or(Less(a, b), Equal(a, b))."""
    x, y = operands(node, 2)
    return op.Or(op.Less(x, y), op.Equal(x, y))


@adapter("PRelu", 16, 9)
def slope_below_zero(op: Tape, node: ir.Node) -> Outputs:
    """PRelu(x, s) -> Where(x < 0, s * x, x) in types of which runtimes have no older kernel."""
    x, slope = operands(node, 2)
    if dtype(x) not in (_D.DOUBLE, *_INTEGERS):
        return UNCHANGED
    if not dtype(x).is_signed():
        return op.Identity(x)
    return op.Where(op.Less(x, scalar(op, 0, dtype(x))), op.Mul(slope, x), x)


@expansion("Shrink", 9, opset=9)
def shrink(op: Tape, node: ir.Node) -> Outputs:
    """Shrink(x) -> x + bias below -lambd, x - bias above lambd, 0 between; integers in double."""
    x, kind = operand(node, 0), dtype(operand(node, 0))
    wide = kind if kind.is_floating_point() else _D.DOUBLE
    inner = cast(op, x, wide)
    offset, edge = scalar(op, real(node, "bias"), wide, "bias"), real(node, "lambd", 0.5)
    below = op.Less(inner, scalar(op, -edge, wide, "lambd"))
    above = op.Greater(inner, scalar(op, edge, wide, "lambd"))
    more, less = op.Add(inner, offset), op.Sub(inner, offset)
    return _first_of(op, (below, more), (above, less), kind)


def _first_of(
    op: Tape, one: tuple[ir.Value, ir.Value], other: tuple[ir.Value, ir.Value], kind: ir.DataType
) -> ir.Value:
    """Record the first of two values whose flag is true, else 0; by products for an integer."""
    if dtype(one[1]) == kind:
        return op.Where(*one, op.Where(*other, scalar(op, 0, kind)))
    flags = [one[0], op.And(other[0], op.Not(one[0]))]
    pairs = zip(flags, (one[1], other[1]), strict=True)
    parts = [op.Mul(op.Cast(flag, to=dtype(value)), value) for flag, value in pairs]
    return op.Cast(op.Add(*parts), to=kind)


@expansion("Celu", 12)
def celu(op: Tape, node: ir.Node) -> Outputs:
    """Celu(x) -> alpha * Elu(x / alpha), or max(0, x) + min(0, alpha * (exp(x / alpha) - 1))."""
    x, alpha = operand(node, 0), real(node, "alpha", 1.0)
    if alpha == 1.0:
        return op.Elu(x, alpha=1.0)
    factor = scalar(op, alpha, dtype(x), "alpha")
    if alpha < 0:
        return _celu_of_negative(op, x, factor)
    return op.Mul(factor, op.Elu(op.Div(x, factor), alpha=1.0))


def _celu_of_negative(op: Tape, x: ir.Value, alpha: ir.Value) -> ir.Value:
    """Record Celu where x and x / alpha have different signs."""
    zero, one = scalar(op, 0, dtype(x)), scalar(op, 1, dtype(x))
    below = op.Mul(alpha, op.Sub(op.Exp(op.Div(x, alpha)), one))
    return op.Add(op.Max(x, zero), op.Min(below, zero))


@adapter("Equal", 11, 7)
def neither_less_nor_greater(op: Tape, node: ir.Node) -> Outputs:
    """Equal(x, y) -> neither Less(x, y) nor Greater(x, y) nor a NaN, of floating types."""
    x, y = operands(node, 2)
    if not dtype(x).is_floating_point():
        return UNCHANGED
    apart = op.Or(op.Less(x, y), op.Greater(x, y))
    return op.Not(op.Or(apart, op.Or(op.IsNaN(x), op.IsNaN(y))))
