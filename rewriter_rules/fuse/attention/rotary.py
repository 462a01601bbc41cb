"""Rotary embeddings in all their spellings as one operator, whatever the angles stand for.

The operator is given the cosine and sine of each token and each pair, so that angles of one axis,
of two, or of sections are all the same to it. What differs is which elements are a pair.
"""

from __future__ import annotations

from dataclasses import dataclass

from onnx_ir import DataType, Node, Value

from vlmpass.ir_tools.graph.symbols import same_size
from vlmpass.ir_tools.rewrite import (
    Declined,
    P,
    Replacement,
    RuleSet,
    Tape,
    refuse,
    rule,
)
from vlmpass.rewriter_rules.fuse.attention.angles import Pairs, doubled
from vlmpass.rewriter_rules.fuse.attention.steps_back import last_part
from vlmpass.rewriter_rules.simplify.known import rank

__all__ = ["ROTARY"]

TYPES = {"x": [DataType.FLOAT, DataType.FLOAT16, DataType.BFLOAT16]}


@dataclass(frozen=True)
class Turn:
    """A rotation of pairs of elements.

    Attributes:
        x: What is turned, [batch, heads, length, size].
        cos: Of each pair, or of each element, broadcast with x.
        sin: Likewise.
        pairs: Which elements are a pair.
    """

    x: Value
    cos: Value
    sin: Value
    pairs: Pairs


def _source(first: Value, second: Value, pairs: Pairs) -> Value | Declined:
    """Return what two values are the first and the second elements of all pairs of."""
    one, two = last_part(first), last_part(second)
    if one is None or two is None or one[0] is not two[0]:
        return refuse("{} and {} are not known to be parts of one value", first, second)
    size = one[0].shape[-1] if one[0].shape else None
    if not isinstance(size, int) or size % 2 or (one[1], two[1]) != pairs.parts(size):
        return refuse("{} and {} are no {} of one value", first, second, pairs.value)
    return one[0]


def _angles(op: Tape, angles: Value, turn: Turn) -> Value | Declined:
    """Return [batch, length, pairs] for what is broadcast with [batch, heads, length, size]."""
    shape, whole = angles.shape, turn.x.shape
    if shape is None or whole is None or len(shape) > 4 or len(shape) < 2:
        return refuse("the shape of {} is not known", angles)
    size = whole[3]
    if len(shape) > 2 and shape[-3] != 1:
        return refuse("{} is not known to be the same for all heads", angles)
    if not same_size(shape[-2], whole[2]) or not isinstance(size, int):
        return refuse("{} is not known to be of the length of {}", angles, turn.x)
    rows = {4: lambda: op.Squeeze(angles, axes=[1]), 3: lambda: angles}
    flat = rows.get(len(shape), lambda: op.Unsqueeze(angles, axes=[0]))()
    if shape[-1] == size:
        if not doubled(angles, turn.pairs):
            return refuse("both {} of {} are not known to be equal", turn.pairs.value, angles)
        step = 2 if turn.pairs == Pairs.NEIGHBOURS else 1
        stop = size if step == 2 else size // 2
        flat = op.Slice(flat, starts=[0], ends=[stop], axes=[2], steps=[step])
    elif shape[-1] != size // 2:
        return refuse("{} has {} elements in a row, {} has {}", angles, shape[-1], turn.x, size)
    batch = shape[0] if len(shape) == 4 else 1
    if same_size(batch, whole[0]):
        return flat
    if batch != 1:
        return refuse("{} and {} are not known to have one batch size", angles, turn.x)
    sizes = op.Concat(op.Shape(turn.x, start=0, end=1), op.const([1, 1]), axis=0)
    return op.Expand(flat, sizes)


def _turned(op: Tape, turn: Turn) -> Replacement:
    """Build the operator."""
    if rank(turn.x) != 4:
        return refuse("{} is not known to have 4 axes", turn.x)
    cos, sin = _angles(op, turn.cos, turn), _angles(op, turn.sin, turn)
    if isinstance(cos, Declined):
        return cos
    if isinstance(sin, Declined):
        return sin
    if not turn.x.dtype == cos.dtype == sin.dtype:
        return refuse("{} is {} and {} is {}", turn.x, turn.x.dtype, turn.cos, cos.dtype)
    neighbours = turn.pairs == Pairs.NEIGHBOURS
    return op.RotaryEmbedding(turn.x, cos, sin, interleaved=1 if neighbours else None)


def _of_elements(
    op: Tape, x: Value, cos: Value, first: Value, second: Value, sin: Value, pairs: Pairs
) -> Replacement:
    """Build the operator for x cos + rotated(x) sin; x and cos may stand the other way round."""
    source = _source(first, second, pairs)
    if isinstance(source, Declined):
        return source
    if source not in (x, cos):
        return refuse("{} is turned, and {} or {} is not", source, x, cos)
    return _turned(op, Turn(source, x if source is cos else cos, sin, pairs))


ROTATED = P.Concat(P.Neg("second"), "first", axis=-1)


@rule(P.Mul("x", "cos") + P.Mul(ROTATED, "sin"), opset=(23, None), dtypes=TYPES)
def rotary_of_halves(
    op: Tape, x: Value, cos: Value, first: Value, second: Value, sin: Value
) -> Replacement:
    """x cos + [-x2, x1] sin -> RotaryEmbedding(x, cos, sin)."""
    return _of_elements(op, x, cos, first, second, sin, Pairs.HALVES)


STACKED = P.Concat(P.Unsqueeze(P.Neg("second"), axes=-1), P.Unsqueeze("first", axes=-1), axis=-1)


@rule(P.Mul("x", "cos") + P.Mul(P.Reshape(STACKED, P.any), "sin"), opset=(23, None), dtypes=TYPES)
def rotary_of_neighbours(
    op: Tape, x: Value, cos: Value, first: Value, second: Value, sin: Value
) -> Replacement:
    """x cos + stack(-x2, x1) sin -> RotaryEmbedding(x, cos, sin, interleaved=1)."""
    return _of_elements(op, x, cos, first, second, sin, Pairs.NEIGHBOURS)


REAL = P.Sub(P.Mul("first", "cos"), P.Mul("second", "sin"))
IMAGINARY = P.Add(P.Mul("second", "cos"), P.Mul("first", "sin"))


@rule(P.Concat(REAL, IMAGINARY, axis=-1), opset=(23, None), dtypes={"first": TYPES["x"]})
def rotary_of_parts(op: Tape, first: Value, second: Value, cos: Value, sin: Value) -> Replacement:
    """[x1 cos - x2 sin, x2 cos + x1 sin] -> RotaryEmbedding(x, cos, sin)."""
    source = _source(first, second, Pairs.HALVES)
    if isinstance(source, Declined):
        return source
    return _turned(op, Turn(source, cos, sin, Pairs.HALVES))


TURNED = P.RotaryEmbedding("part", "cos", "sin", _node="node")


@rule(P.Concat(TURNED, "rest", axis=-1), opset=(23, None))
def rotary_of_a_part(
    op: Tape, part: Value, cos: Value, sin: Value, rest: Value, node: Node
) -> Replacement:
    """[RotaryEmbedding(x1, cos, sin), x2] -> RotaryEmbedding(x, cos, sin, rotary_embedding_dim)."""
    one, two = last_part(part), last_part(rest)
    if one is None or two is None or one[0] is not two[0]:
        return refuse("{} and {} are not known to be parts of one value", part, rest)
    size = one[0].shape[-1] if one[0].shape else None
    if not isinstance(size, int) or [*one[1], *two[1]] != list(range(size)):
        return refuse("{} and {} are not all of {}, in order", part, rest, one[0])
    attributes = {**node.attributes, "rotary_embedding_dim": len(one[1])}
    return op.node("RotaryEmbedding", [one[0], cos, sin], attributes)[0]


ROTARY = RuleSet((rotary_of_halves, rotary_of_neighbours, rotary_of_parts, rotary_of_a_part))
