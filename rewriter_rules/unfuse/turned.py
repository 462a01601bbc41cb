"""Rotary embedding: pairs of elements turned by angles that caches hold for every position."""

from __future__ import annotations

import onnx_ir as ir

from vlmpass.ir_tools.graph.tape import Tape
from vlmpass.rewriter_rules.opset.build import arange, cast, scalar, scalar_at, size_at, vector
from vlmpass.rewriter_rules.opset.queries import dims, integer, integers, operands, rank, real
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


@unfused("MRotaryEmbedding")
def unfuse_m_rotary_embedding(op: Tape, node: ir.Node) -> Outputs:
    """MRotaryEmbedding(x, p, cos, sin) -> RotaryEmbedding(x, cos[p], sin[p]), p by its sections."""
    kind, scale = floats(node, 0, 2, 3), real(node, "scale", 1.0)
    x, given, *caches = operands(node, 4)
    half = known_size(caches[0], 1, "the size of its caches")
    streams = _streams(node, half)
    angles = [_of_streams(op, cache, given, streams) for cache in caches]
    if scale != 1.0:
        angles = [op.Mul(each, scalar(op, scale, kind, "scale")) for each in angles]
    heads = _heads(node, x, 2 * half)
    ragged = bool(integer(node, "is_packed_batching"))
    twisted = bool(integer(node, "interleaved"))
    return turned(op, x, angles, None, heads, interleaved=twisted, ragged=ragged)


def _streams(node: ir.Node, half: int) -> list[int]:
    """Return for each angle which positions it is of: those in time, of rows or of columns.

    Raises:
        CannotConvert: The sections are none of as many angles.
    """
    sizes, layout = integers(node, "mrope_section") or (), integer(node, "mrope_layout")
    if len(sizes) != 3 or sum(sizes) != half or layout not in (0, 1):
        raise CannotConvert(f"its sections {list(sizes)} in layout {layout} are not of {half}")
    if not layout:
        return [stream for stream, size in enumerate(sizes) for _ in range(size)]
    inside = [place % 3 for place in range(half)]
    return [each if place < 3 * sizes[each] else 0 for place, each in enumerate(inside)]


def _of_streams(op: Tape, cache: ir.Value, places: ir.Value, streams: list[int]) -> ir.Value:
    """Record the angles of every element, each by positions of its own: (batch, length, half)."""
    order = sorted(range(len(streams)), key=streams.__getitem__)
    parts = []
    for stream in sorted(set(streams)):
        columns = [place for place in order if streams[place] == stream]
        few = op.Gather(cache, vector(op, columns), axis=1)
        parts.append(op.Gather(few, op.Gather(places, op.const(stream), axis=0), axis=0))
    whole = op.Concat(*parts, axis=-1) if len(parts) > 1 else parts[0]
    if order == sorted(order):
        return whole
    back = sorted(range(len(order)), key=order.__getitem__)
    return op.Gather(whole, vector(op, back), axis=2)


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
    places: ir.Value | None,
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
        places: The positions, (batch, length); None where the caches hold the angles of every
            element, (batch, length, half).
        heads: How many heads three axes hold; 0 where x has four.
        interleaved: Whether neighbours are pairs, rather than elements of either half.
        ragged: Whether there may be more elements than positions, several sequences in one, which
            ONNX Runtime's kernel of the standard operator does not take.
    """
    half = known_size(caches[0], -1, "the size of its caches")
    size = known_size(x, -1, f"the last size of {x.name}") // max(heads, 1)
    if op.opsets[""] >= _STANDARD and not ragged:
        attributes = {
            "interleaved": int(interleaved),
            "num_heads": heads,
            "rotary_embedding_dim": 0 if 2 * half == size else 2 * half,
        }
        inputs = [x, *caches, *([] if places is None else [cast(op, places, ir.DataType.INT64)])]
        return op.node("RotaryEmbedding", inputs, attributes)[0]
    split = op.Reshape(x, vector(op, [0, 0, heads, size])) if heads else x
    found = caches if places is None else [op.Gather(cache, places) for cache in caches]
    angles = [op.Unsqueeze(each, axes=[2 if heads else 1]) for each in found]
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


TURNED = unfuse_rotary_embedding + unfuse_m_rotary_embedding
