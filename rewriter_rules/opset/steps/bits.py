"""Operations on bits: shifts beyond the width, and logic by sums of powers of two."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from vlmpass.ir_tools.graph.tape import Tape
from vlmpass.rewriter_rules.opset.build import scalar, vector
from vlmpass.rewriter_rules.opset.queries import (
    dtype,
    known_or_none,
    operand,
    operands,
    text,
)
from vlmpass.rewriter_rules.opset.table import (
    HIGHER,
    UNCHANGED,
    CannotConvert,
    Outputs,
    adapter,
    expansion,
)

__all__: list[str] = []

_D = ir.DataType
_FRACTION_BITS = {_D.FLOAT16: 10, _D.BFLOAT16: 7, _D.FLOAT: 23, _D.DOUBLE: 52}
_UNSIGNED = {_D.INT8: _D.UINT8, _D.INT16: _D.UINT16, _D.INT32: _D.UINT32, _D.INT64: _D.UINT64}


@adapter("BitShift", 28, 11)
def within_the_width(op: Tape, node: ir.Node) -> Outputs:
    """BitShift(x, y) -> Where(y < width, BitShift(x, y), 0), of unsigned integers."""
    x, amount = operands(node, 2)
    width, fixed = dtype(x).bitwidth, known_or_none(amount)
    if dtype(x) in _UNSIGNED:
        return _signed_shift(op, x, amount, text(node, "direction"))
    if fixed is not None and ((fixed >= 0) & (fixed < width)).all():
        return UNCHANGED
    return _guarded(op, x, amount, text(node, "direction"))


def _signed_shift(op: Tape, x: ir.Value, amount: ir.Value, direction: str) -> ir.Value:
    """Record a shift of signed integers by one of unsigned ones."""
    kind, bare = dtype(x), _UNSIGNED[dtype(x)]
    zero, steps = scalar(op, 0, kind), op.Cast(amount, to=bare)
    if direction == "LEFT":
        return op.Cast(_guarded(op, op.Cast(x, to=bare), steps, direction), to=kind)
    # ~((~x) >> y) shifts the sign in, and ~x is -1 - x.
    below, ones = op.Less(x, zero), scalar(op, -1, kind)
    positive = op.Where(below, op.Sub(ones, x), x)
    moved = op.Cast(_guarded(op, op.Cast(positive, to=bare), steps, direction), to=kind)
    return op.Where(op.And(below, op.Equal(moved, moved)), op.Sub(ones, moved), moved)


def _guarded(op: Tape, x: ir.Value, amount: ir.Value, direction: str) -> ir.Value:
    """Record a shift that leaves 0 from the width on."""
    kind = dtype(amount)
    inside = op.Less(amount, scalar(op, dtype(x).bitwidth, kind))
    safe = op.Where(inside, amount, scalar(op, 0, kind))
    return op.Where(inside, op.BitShift(x, safe, direction=direction), scalar(op, 0, dtype(x)))


@expansion("BitwiseNot", 18)
def bitwise_not(op: Tape, node: ir.Node) -> Outputs:
    """BitwiseNot(x) -> -1 - x, or the largest value - x where it is unsigned."""
    x = operand(node, 0)
    kind = dtype(x)
    top = np.iinfo(kind.numpy()).max if not kind.is_signed() else -1
    return op.Sub(op.const(np.array(top, kind.numpy()), kind), x)


@expansion("BitwiseAnd BitwiseOr BitwiseXor", 18)
def by_bits(op: Tape, node: ir.Node) -> Outputs:
    """Op(x, y) -> the sum over i of 2^i where bits i of x and y make a 1."""
    kind, logic = dtype(operand(node, 0)), node.op_type.removeprefix("Bitwise")
    values = [op.Cast(each, to=_D.INT64) for each in operands(node, 2)]
    if kind.bitwidth > 32:
        return op.Cast(_long_words(op, values, logic), to=kind)
    return op.Cast(_words(op, values, logic, kind.bitwidth), to=kind)


def _long_words(op: Tape, operands: list[ir.Value], logic: str) -> ir.Value:
    """Record the logic of all bits of int64 values, by halves."""
    half = scalar(op, 2**32, _D.INT64)
    low = _words(op, operands, logic, 32)
    lower = [op.Mod(value, half) for value in operands]
    upper = [op.Div(op.Sub(v, rest), half) for v, rest in zip(operands, lower, strict=True)]
    high = _words(op, upper, logic, 32)
    signed = op.Where(op.Less(high, scalar(op, 2**31, _D.INT64)), high, op.Sub(high, half))
    return op.Add(op.Mul(signed, half), low)


def _words(op: Tape, operands: list[ir.Value], logic: str, width: int) -> ir.Value:
    """Record the logic of the lowest bits of int64 values, as a number of that many bits."""
    powers = op.const(2 ** np.arange(width, dtype=np.int64), name="powers")
    two, last = scalar(op, 2, _D.INT64), vector(op, [-1])
    modulus = scalar(op, 2**width, _D.INT64)
    bits = [
        op.Cast(op.Mod(op.Div(op.Unsqueeze(op.Mod(v, modulus), last), powers), two), to=_D.BOOL)
        for v in operands
    ]
    found = op.Cast(op.node(logic, bits)[0], to=_D.INT64)
    return op.ReduceSum(op.Mul(found, powers), last, keepdims=0)


@expansion("BitCast", 26)
def same_bits(op: Tape, node: ir.Node) -> Outputs:
    """BitCast(x, to) -> Cast(x, to) of integers; the sum of a float's parts where `to` is one."""
    x, kind = operand(node, 0), _D(node.attributes["to"].as_int())
    if dtype(x) == kind:
        return op.Identity(x)
    if not _readable(dtype(x), kind):
        old, new = (each.name.lower() for each in (dtype(x), kind))
        raise CannotConvert(f"the bits of {old} cannot be read as {new} before opset 26", HIGHER)
    return op.Cast(_assembled(op, x, kind) if kind in _FRACTION_BITS else x, to=kind)


def _readable(source: ir.DataType, kind: ir.DataType) -> bool:
    """Whether arithmetic makes of a type's numbers those of another type with the same bits."""
    whole = _D.UINT8 if source == _D.BOOL else source
    known = kind in _FRACTION_BITS or (kind.is_integer() and kind.bitwidth >= 8)
    return known and whole.is_integer() and whole.bitwidth == kind.bitwidth


def _assembled(op: Tape, x: ir.Value, kind: ir.DataType) -> ir.Value:
    """Record, in double, the number whose bits an integer has; every NaN becomes the same one."""
    width, fraction = kind.bitwidth, _FRACTION_BITS[kind]
    bits = op.Cast(x, to=_D.INT64)
    zero, one = scalar(op, 0, _D.INT64), op.const(np.array(1.0), _D.DOUBLE)
    step = op.const(np.array(2**fraction, np.int64))
    below = op.const(np.array(-(2 ** (width - 1)), np.int64))
    if dtype(x).is_signed() or width == 64:
        negative = op.Less(bits, zero)
        rest = op.Where(negative, op.Sub(bits, below), bits)
    else:
        negative = op.Not(op.Less(op.Add(bits, below), zero))
        rest = op.Where(negative, op.Add(bits, below), bits)
    exponent = op.Div(rest, step)
    digits = op.Sub(rest, op.Mul(exponent, step))
    last = 2 ** (width - 1 - fraction) - 1
    powers = np.maximum(np.arange(last + 1), 1) - (last // 2 + fraction)
    table = op.const(np.append(np.ldexp(1.0, powers[:-1]), np.inf), _D.DOUBLE, "powers")
    normal = op.Where(op.Equal(exponent, zero), zero, step)
    size = op.Mul(op.Cast(op.Add(digits, normal), to=_D.DOUBLE), op.Gather(table, exponent))
    special = op.Equal(exponent, op.const(np.array(last, np.int64)))
    whole = op.And(special, op.Not(op.Equal(digits, zero)))
    size = op.Where(whole, op.const(np.array(np.nan), _D.DOUBLE), size)
    return op.Mul(size, op.Where(negative, op.Neg(one), one))
