"""Rotary embedding: pairs of elements turned by angles that caches hold for every position."""

from __future__ import annotations

import onnx_ir as ir

from vlmpass.ir_tools.graph.tape import Tape
from vlmpass.rewriter_rules.opset.build import arange, cast, scalar_at, size_at, vector
from vlmpass.rewriter_rules.opset.queries import dims, integer, operands, rank
from vlmpass.rewriter_rules.opset.table import CannotConvert, Outputs
from vlmpass.rewriter_rules.unfuse.attended import known_size, last_part
from vlmpass.rewriter_rules.unfuse.unfused import floats, unfused

__all__ = ["TURNED", "turned"]

_STANDARD = 23
"""The opset from which the standard has RotaryEmbedding."""
_REST = 2**31 - 1


@unfused("RotaryEmbedding")
def unfuse_rotary_embedding(op: Tape, node: ir.Node) -> Outputs:
    """com.microsoft::RotaryEmbedding(x, p, cos, sin) -> RotaryEmbedding(x, cos, sin, p)."""
    floats(node, 0, 2, 3)
    x, given, *caches = operands(node, 4)
    places = _places(op, x, given)
    heads = _heads(node, x, 2 * known_size(caches[0], 1, "the size of its caches"))
    twisted, ragged = (bool(integer(node, each)) for each in ("interleaved", "is_packed_batching"))
    return turned(op, x, caches, places, heads, interleaved=twisted, ragged=ragged)


def _heads(node: ir.Node, x: ir.Value, size: int) -> int:
    """Return how many heads there are; the caches say how much of each one turns."""
    if rank(x) == 4:
        return 0
    width = known_size(x, -1, f"the last size of {x.name}")
    if not integer(node, "rotary_embedding_dim"):
        return width // size
    return integer(node, "num_heads")


def _places(op: Tape, x: ir.Value, given: ir.Value) -> ir.Value:
    """Record the position of every element: (batch, length)."""
    if rank(given) == 2:
        return given
    if dims(given) not in ([1], []):
        raise CannotConvert("its position_ids have one axis of more than one position")
    line = op.Add(arange(op, scalar_at(op, op.Shape(x), rank(x) - 2)), given)
    return op.Expand(op.Unsqueeze(line, axes=[0]), _rows(op, x))


def _rows(op: Tape, x: ir.Value) -> ir.Value:
    return op.Concat(size_at(op, x, 0), vector(op, [1]), axis=0)


def turned(
    op: Tape,
    x: ir.Value,
    caches: list[ir.Value],
    places: ir.Value,
    heads: int,
    *,
    interleaved: bool,
    ragged: bool = False,
) -> ir.Value:
    """Record what is turned by the angles of its positions.

    Args:
        op: The tape.
        x: (batch, heads, length, size), or (batch, length, heads * size).
        caches: The cosines and sines of every position, for half of what turns of a head.
        places: The positions, (batch, length).
        heads: How many heads three axes hold; 0 where x has four.
        interleaved: Whether neighbours are pairs, rather than elements of either half.
        ragged: Whether there may be more elements than positions, several sequences in one, which
            ONNX Runtime's kernel of the standard operator does not take.
    """
    half = known_size(caches[0], 1, "the size of its caches")
    size = known_size(x, -1, f"the last size of {x.name}") // max(heads, 1)
    if op.opsets[""] >= _STANDARD and not ragged:
        attributes = {
            "interleaved": int(interleaved),
            "num_heads": heads,
            "rotary_embedding_dim": 0 if 2 * half == size else 2 * half,
        }
        inputs = [x, *caches, cast(op, places, ir.DataType.INT64)]
        return op.node("RotaryEmbedding", inputs, attributes)[0]
    split = op.Reshape(x, vector(op, [0, 0, heads, size])) if heads else x
    angles = [op.Unsqueeze(op.Gather(cache, places), axes=[2 if heads else 1]) for cache in caches]
    whole = _rotated(op, last_part(op, split, 0, 2 * half), angles, half, interleaved)
    if 2 * half < size:
        whole = op.Concat(whole, last_part(op, split, 2 * half, _REST), axis=-1)
    return op.Reshape(whole, vector(op, [0, 0, heads * size])) if heads else whole


def _rotated(
    op: Tape, x: ir.Value, angles: list[ir.Value], half: int, interleaved: bool
) -> ir.Value:
    """Record pairs (a, b) of four axes as (a cos - b sin, a sin + b cos)."""
    cos, sin = angles
    if interleaved:
        pairs = op.Reshape(x, vector(op, [0, 0, 0, half, 2]))
        first, second = (op.Gather(pairs, op.const(index), axis=-1) for index in (0, 1))
    else:
        first, second = last_part(op, x, 0, half), last_part(op, x, half, 2 * half)
    real = op.Sub(op.Mul(first, cos), op.Mul(second, sin))
    imaginary = op.Add(op.Mul(first, sin), op.Mul(second, cos))
    if not interleaved:
        return op.Concat(real, imaginary, axis=-1)
    both = op.Concat(op.Unsqueeze(real, axes=[-1]), op.Unsqueeze(imaginary, axes=[-1]), axis=-1)
    return op.Reshape(both, vector(op, [0, 0, 0, 2 * half]))


TURNED = unfuse_rotary_embedding
