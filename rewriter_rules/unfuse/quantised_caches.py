"""Caches of GroupQueryAttention that hold integers: steps of a scale, of 8 bits or two of 4."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from vlmpass.ir_tools.graph.tape import Tape
from vlmpass.rewriter_rules.opset.build import vector
from vlmpass.rewriter_rules.opset.queries import integer, operand, optional_input, text
from vlmpass.rewriter_rules.opset.table import CannotConvert
from vlmpass.rewriter_rules.unfuse.attended import known_size

__all__ = ["Stored", "stored"]

_INT, _FLOAT = ir.DataType.INT32, ir.DataType.FLOAT
_KINDS = {8: ir.DataType.INT8, 4: ir.DataType.UINT8}
"""What kernels of ONNX Runtime's CPU have for how many bits; two of 4 lie in a byte."""
_HALF = 8
"""What is added to numbers of 4 bits with a sign."""
_SCALES = (12, 13)
"""Inputs for the scales of keys and of values."""


@dataclass(frozen=True)
class Stored:
    """How keys or values lie in a cache.

    Attributes:
        bits: Of each number.
        scale: What a step is, [1, 1, 1, 1] or [1, heads, 1, size], of float32.
    """

    bits: int
    scale: ir.Value

    def before(self, op: Tape, past: ir.Value) -> ir.Value:
        """Record what a cache holds, in integers that all operators take.

        Args:
            op: The tape.
            past: A cache that is given.
        """
        return op.Cast(past, to=_INT)

    def rounded(self, op: Tape, new: ir.Value) -> ir.Value:
        """Record new keys or values as they will lie, in such integers.

        Args:
            op: The tape.
            new: (batch, heads, length, size).
        """
        steps = op.Round(op.Div(op.Cast(new, to=_FLOAT), self.scale))
        most = 1 << (self.bits - 1)
        ends = [op.const(float(end), _FLOAT) for end in (-most, most - 1)]
        whole = op.Cast(op.Clip(steps, *ends), to=_INT)
        if self.bits == 8:
            return whole
        size = known_size(new, 3, "the size of a head")
        pairs = op.Reshape(
            op.Add(whole, op.const(_HALF, _INT)), vector(op, [0, 0, 0, size // 2, 2])
        )
        low, high = (op.Gather(pairs, op.const(index), axis=-1) for index in (0, 1))
        return op.Add(low, op.Mul(high, op.const(16, _INT)))

    def numbers(self, op: Tape, held: ir.Value, kind: ir.DataType) -> ir.Value:
        """Record what the integers of a cache stand for, of a float type.

        Args:
            op: The tape.
            held: (batch, heads, length, bytes), as `rounded` has it.
            kind: The float type.
        """
        steps = held
        if self.bits == 4:
            high = op.Div(held, op.const(16, _INT))
            low = op.Sub(held, op.Mul(high, op.const(16, _INT)))
            both = op.Concat(*(op.Unsqueeze(each, axes=[-1]) for each in (low, high)), axis=-1)
            size = 2 * known_size(held, 3, "the size of a head")
            flat = op.Reshape(both, vector(op, [0, 0, 0, size]))
            steps = op.Sub(flat, op.const(_HALF, _INT))
        return op.Cast(op.Mul(op.Cast(steps, to=_FLOAT), self.scale), to=kind)

    def given_out(self, op: Tape, held: ir.Value) -> ir.Value:
        """Record a cache as the operator gives it.

        Args:
            op: The tape.
            held: As `rounded` has it.
        """
        return op.Cast(held, to=_KINDS[self.bits])


def stored(op: Tape, node: ir.Node, size: int) -> tuple[Stored, Stored] | None:
    """Return how keys and values lie in the cache of a node; None where they are floats.

    Args:
        op: The tape.
        node: GroupQueryAttention.
        size: Of a head.

    Raises:
        CannotConvert: As no kernel of ONNX Runtime's CPU has it, which it could be held against.
    """
    kinds = [text(node, name, "NONE") for name in ("k_quant_type", "v_quant_type")]
    bits, given = integer(node, "kv_cache_bit_width"), [optional_input(node, x) for x in _SCALES]
    if kinds == ["NONE", "NONE"] and not bits and given == [None, None]:
        return None
    if kinds[0] != kinds[1] or kinds[0] not in ("PER_TENSOR", "PER_CHANNEL") or None in given:
        raise CannotConvert(f"its cache is quantised as no kernel of the CPU has it: {kinds}")
    past = [optional_input(node, index) for index in (3, 4)]
    types = {None if each is None else each.dtype for each in past}
    if types != {_KINDS.get(bits)}:
        raise CannotConvert(f"its cache is of {bits} bits and {types}: no kernel of the CPU has it")
    shape = (
        [1, 1, 1, 1] if kinds[0] == "PER_TENSOR" else [1, integer(node, "kv_num_heads"), 1, size]
    )
    scales = [op.Reshape(operand(node, index), vector(op, shape)) for index in _SCALES]
    return Stored(bits, scales[0]), Stored(bits, scales[1])
