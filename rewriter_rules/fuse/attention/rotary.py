"""Rotary embeddings in all their spellings as one operator, whatever the angles stand for.

The operator is given the cosine and sine of each token and each pair, so that angles of one axis,
of two, or of sections are all the same to it. What differs is which elements are a pair.
"""

from __future__ import annotations

from dataclasses import dataclass

from onnx_ir import DataType, Node, Value

from vlmpass.ir_tools.graph.read_attributes import int_of
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
from vlmpass.rewriter_rules.fuse.attention.runtime_forms import for_runtime, rotary_embedding
from vlmpass.rewriter_rules.fuse.attention.steps_back import (
    axis_size,
    elements,
    integers,
    made_by,
    reshaped,
)
from vlmpass.rewriter_rules.fuse.spellings import ORT
from vlmpass.rewriter_rules.simplify.known import rank

__all__ = ["ROTARY"]

SWAPPED = (0, 2, 1, 3)
"""Heads before tokens, or tokens before heads."""
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


def _row(op: Tape, source: Value, row: range) -> Value:
    """Return some elements in a row of each row of a value."""
    if source.shape is not None and source.shape[-1] == len(row):
        return source
    return op.Slice(source, starts=[row.start], ends=[row.stop], axes=[-1])


def _are_pairs(x: Value, first: Value, second: Value, pairs: Pairs) -> bool:
    """Return whether two values are the first and the second elements of all pairs of x."""
    (source, row), one, two = elements(x), elements(first), elements(second)
    alike = one[0] is source and two[0] is source and len(row) % 2 == 0
    return alike and (one[1], two[1]) == pairs.parts(row)


def _of_rank_3(op: Tape, angles: Value, rank: int) -> Value:
    """Return angles without the axis of heads, which is 1, or with one for the batch."""
    if rank == 4:
        node = made_by(angles, "Unsqueeze")
        added = None if node is None else integers(node.inputs[1])
        source = node.inputs[0] if node is not None and added in ([1], [-3]) else None
        return op.Squeeze(angles, axes=[1]) if source is None else source
    return angles if rank == 3 else op.Unsqueeze(angles, axes=[0])


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
    flat = _of_rank_3(op, angles, len(shape))
    if shape[-1] == size:
        if not doubled(angles, turn.pairs):
            return refuse("both {} of {} are not known to be equal", turn.pairs.value, angles)
        step = 2 if turn.pairs == Pairs.NEIGHBOURS else 1
        stop = size if step == 2 else size // 2
        flat = op.Slice(flat, starts=[0], ends=[stop], axes=[2], steps=[step])
    elif shape[-1] != size // 2:
        return refuse("{} has {} elements in a row, {} has {}", angles, shape[-1], turn.x, size)
    batch = shape[0] if len(shape) == 4 else 1
    if batch != 1 and not same_size(batch, whole[0]):
        return refuse("{} and {} are not known to have one batch size", angles, turn.x)
    return flat


def _for_each_batch(op: Tape, angles: Value, x: Value) -> Value:
    """Return angles for the batch of x, which may be those of all."""
    if angles.shape is not None and x.shape is not None and same_size(angles.shape[0], x.shape[0]):
        return angles
    return op.Expand(angles, op.Concat(axis_size(op, x, 0), op.const([1, 1]), axis=0))


def _by_token(angles: Value) -> bool:
    """Return whether angles are broadcast with [batch, length, heads, size]."""
    shape = angles.shape
    return shape is not None and len(shape) == 4 and shape[1] != 1 and shape[2] == 1


def _turned(op: Tape, turn: Turn) -> Replacement:
    """Build the operator, whatever the order of heads and tokens."""
    if rank(turn.x) != 4:
        return refuse("{} is not known to have 4 axes", turn.x)
    if not (_by_token(turn.cos) and _by_token(turn.sin)):
        return _by_head(op, turn, turn.x)
    x, cos, sin = (op.Transpose(each, perm=SWAPPED) for each in (turn.x, turn.cos, turn.sin))
    made = _by_head(op, Turn(x, cos, sin, turn.pairs), turn.x)
    return op.Transpose(made, perm=SWAPPED) if isinstance(made, Value) else made


def _by_head(op: Tape, turn: Turn, source: Value) -> Replacement:
    """Build the operator for [batch, heads, length, size], as many batches as a source has."""
    cos, sin = _angles(op, turn.cos, turn), _angles(op, turn.sin, turn)
    if isinstance(cos, Declined):
        return cos
    if isinstance(sin, Declined):
        return sin
    if not turn.x.dtype == cos.dtype == sin.dtype:
        return refuse("{} is {} and {} is {}", turn.x, turn.x.dtype, turn.cos, cos.dtype)
    neighbours = turn.pairs == Pairs.NEIGHBOURS
    own = for_runtime(op, "RotaryEmbedding")
    shared = own and all(each.shape is not None and each.shape[0] == 1 for each in (cos, sin))
    if not shared:
        cos, sin = _for_each_batch(op, cos, source), _for_each_batch(op, sin, source)
    if own:
        return rotary_embedding(op, turn.x, cos, sin, neighbours=neighbours, shared=shared)
    return op.RotaryEmbedding(turn.x, cos, sin, interleaved=1 if neighbours else None)


def _ofelements(
    op: Tape, x: Value, cos: Value, first: Value, second: Value, sin: Value, pairs: Pairs
) -> Replacement:
    """Build the operator for x cos + rotated(x) sin; x and cos may stand the other way round."""
    for turned, angles in ((x, cos), (cos, x)):
        if _are_pairs(turned, first, second, pairs):
            return _turned(op, Turn(turned, angles, sin, pairs))
    return refuse("{} and {} are no {} of {} or {}", first, second, pairs.value, x, cos)


ROTATED = P.Concat(P.Neg("second"), "first", axis=-1)


@rule(P.Mul("x", "cos") + P.Mul(ROTATED, "sin"), opset=(23, None), or_emits=ORT, dtypes=TYPES)
def rotary_of_halves(
    op: Tape, x: Value, cos: Value, first: Value, second: Value, sin: Value
) -> Replacement:
    """x cos + [-x2, x1] sin -> RotaryEmbedding(x, cos, sin)."""
    return _ofelements(op, x, cos, first, second, sin, Pairs.HALVES)


STACKED = P.Concat(P.Unsqueeze(P.Neg("second"), axes=-1), P.Unsqueeze("first", axes=-1), axis=-1)
UNSTACKED = P.Reshape(STACKED, P.any, allowzero=P.any).named("rotated")


@rule(
    P.Mul("x", "cos") + P.Mul(UNSTACKED, "sin"),
    opset=(23, None),
    or_emits=ORT,
    dtypes=TYPES,
)
def rotary_of_neighbours(
    op: Tape, x: Value, cos: Value, first: Value, second: Value, sin: Value, rotated: Value
) -> Replacement:
    """x cos + stack(-x2, x1) sin -> RotaryEmbedding(x, cos, sin, interleaved=1)."""
    sizes, rows = reshaped(rotated), first.shape
    if sizes is None or rows is None or len(sizes) != len(rows):
        return refuse("{} is not known to have the axes of {}", rotated, first)
    if not all(map(same_size, sizes[:-1], rows[:-1])):
        return refuse("{} is not known to have the rows of {}", rotated, first)
    return _ofelements(op, x, cos, first, second, sin, Pairs.NEIGHBOURS)


REAL = P.Sub(P.Mul("first", "cos"), P.Mul("second", "sin"))
IMAGINARY = P.Add(P.Mul("second", "cos"), P.Mul("first", "sin"))


@rule(
    P.Concat(REAL, IMAGINARY, axis=-1),
    opset=(23, None),
    or_emits=ORT,
    dtypes={"first": TYPES["x"]},
)
def rotary_of_parts(op: Tape, first: Value, second: Value, cos: Value, sin: Value) -> Replacement:
    """[x1 cos - x2 sin, x2 cos + x1 sin] -> RotaryEmbedding(x, cos, sin)."""
    (source, one), (other, two) = elements(first), elements(second)
    joined = range(one.start, two.stop)
    if other is not source or (one, two) != Pairs.HALVES.parts(joined):
        return refuse("{} and {} are no halves of one value", first, second)
    return _turned(op, Turn(_row(op, source, joined), cos, sin, Pairs.HALVES))


def _turns_heads(node: Node) -> bool:
    """Return whether a node turns all elements of [batch, heads, length, size]."""
    x = node.inputs[0]
    whole = int_of(node, "rotary_embedding_dim", 0) == 0
    return whole and x is not None and rank(x) == 4


TURNED = P.RotaryEmbedding("part", "cos", "sin", _node="node")


@rule(P.Concat(TURNED, "rest", axis=-1), opset=(23, None))
def rotary_of_a_part(
    op: Tape, part: Value, cos: Value, sin: Value, rest: Value, node: Node
) -> Replacement:
    """[RotaryEmbedding(x1, cos, sin), x2] -> RotaryEmbedding(x, cos, sin, rotary_embedding_dim)."""
    row = _front(op, part, rest, node)
    return row if isinstance(row, Declined) else _again(op, row, part, node, cos, sin)


def _front(op: Tape, part: Value, rest: Value, node: Node) -> Value | Declined:
    """Return rows of which one part is turned by a node, and the rest behind it is not."""
    (source, one), (other, two) = elements(part), elements(rest)
    joined = range(one.start, two.stop)
    if other is not source or [*one, *two] != list(joined):
        return refuse("{} and {} are no parts in a row of one value", part, rest)
    if not _turns_heads(node):
        return refuse("{} does not turn whole rows of 4 axes", node)
    return _row(op, source, joined)


def _again(op: Tape, row: Value, part: Value, node: Node, cos: Value, sin: Value) -> Value:
    """Build the operator of a node for the front part of rows."""
    attributes = {**node.attributes, "rotary_embedding_dim": len(elements(part)[1])}
    return op.node("RotaryEmbedding", [row, cos, sin], attributes)[0]


TURNED_TOKENS = P.Transpose(
    P.RotaryEmbedding(P.Transpose("part", perm=SWAPPED), "cos", "sin", _node="node"), perm=SWAPPED
)


@rule(P.Concat(TURNED_TOKENS, "rest", axis=-1), opset=(23, None))
def rotary_of_a_part_of_tokens(
    op: Tape, part: Value, cos: Value, sin: Value, rest: Value, node: Node
) -> Replacement:
    """[Transpose(RotaryEmbedding(Transpose(x1), cos, sin)), x2] -> the same of x, front part."""
    row = _front(op, part, rest, node)
    if isinstance(row, Declined):
        return row
    swapped = op.Transpose(row, perm=SWAPPED)
    return op.Transpose(_again(op, swapped, part, node, cos, sin), perm=SWAPPED)


ROTARY = RuleSet(
    (
        rotary_of_halves,
        rotary_of_neighbours,
        rotary_of_parts,
        rotary_of_a_part,
        rotary_of_a_part_of_tokens,
    )
)
