"""Queries and keys that ONNX Runtime's own operator for grouped heads turns by itself.

It counts places from the first token of before on. Only where there are none are the angles of all
places at hand, those of the tokens given.
"""

from __future__ import annotations

import numpy as np
from onnx_ir import Node, Value

from vlmpass.ir_tools.graph.constants import constant_of
from vlmpass.ir_tools.graph.read_attributes import int_of
from vlmpass.ir_tools.operators import Kind, traits_of
from vlmpass.ir_tools.rewrite import Declined, P, Replacement, RuleSet, Tape, refuse, rule
from vlmpass.rewriter_rules.fuse.attention.grouped_queries import OUTPUTS, counted
from vlmpass.rewriter_rules.fuse.attention.inside import BY_HEAD, flat, packed
from vlmpass.rewriter_rules.fuse.attention.positions import exactly, plus, terms_of_size
from vlmpass.rewriter_rules.fuse.attention.steps_back import integers
from vlmpass.rewriter_rules.fuse.spellings import NOT_IN_FUNCTIONS, ORT
from vlmpass.rewriter_rules.simplify.known import rank

__all__ = ["GROUPED_ROTARY"]

MULTIPLE = 16
"""Kernels turn heads of a size that is a multiple of this."""
ALIKE = 6
"""Angles of queries and of keys are the same in no more steps back."""
SMALL = 16
"""No constant that says how angles are cut has more numbers."""
QUERY = P.RotaryEmbedding("query", ..., _domain=ORT, _node="one")
KEY = P.RotaryEmbedding("key", ..., _domain=ORT, _node="two")
QUERIES = P.Reshape(P.Transpose(QUERY, perm=BY_HEAD), P.any)
KEYS = P.Reshape(P.Transpose(KEY, perm=BY_HEAD), P.any)
GROUPED = P.GroupQueryAttention(
    QUERIES, KEYS, "value", None, None, ..., _domain=ORT, _node="core", _outputs=OUTPUTS
)


@rule(GROUPED, emits=ORT)
def rotary_of_grouped_query_attention(
    op: Tape, query: Value, key: Value, value: Value, one: Node, two: Node, core: Node
) -> Replacement:
    """GroupQueryAttention(RotaryEmbedding(q), RotaryEmbedding(k), v) -> one that turns q and k."""
    reason = _lacking(one, two, core) or _unlike(one, two) or _begins_late(core, query)
    if reason is not None or op.in_function:
        return reason or refuse(NOT_IN_FUNCTIONS, core.op_type)
    rows = packed([flat(op, query), flat(op, key), value])
    inputs = [*rows, None, None, *core.inputs[5:7], *one.inputs[2:], *core.inputs[9:]]
    pairs = int_of(one, "interleaved", 0)
    given = {**core.attributes, "do_rotary": 1, "rotary_interleaved": pairs}
    return op.node(core.op_type, inputs, given, domain=ORT, outputs=OUTPUTS)


def _lacking(one: Node, two: Node, core: Node) -> Declined | None:
    """Return which node lacks inputs that its operator demands."""
    for node, demanded in ((one, 4), (two, 4), (core, 7)):
        if len(node.inputs) < demanded:
            return refuse("{} lacks inputs that it must have", node)
    return None


def _unlike(one: Node, two: Node) -> Declined | None:
    """Return why two nodes may not turn whole heads by the same angles, the first by the first."""
    for node in (one, two):
        (heads, size), cos = _sizes(node.inputs[0]), node.inputs[2]
        width = None if cos is None or cos.shape is None else cos.shape[-1]
        known = isinstance(size, int) and isinstance(heads, int) and width == size // 2
        if not known or not isinstance(size, int) or size % MULTIPLE:
            return refuse("whole heads of a size that is a multiple of 16 are turned, not {}", size)
    if any({*node.attributes} - {"interleaved"} for node in (one, two)):
        return refuse("{} or {} is told more than which elements are pairs", one, two)
    if int_of(one, "interleaved", 0) != int_of(two, "interleaved", 0):
        return refuse("{} and {} turn other pairs", one, two)
    starts = [node.inputs[1] for node in (one, two)]
    if any(integers(each) != [0] or each is None or rank(each) != 1 for each in starts):
        return refuse("{} or {} does not begin with the first angles", one, two)
    if not all(_alike(*pair) for pair in zip(one.inputs[2:], two.inputs[2:], strict=True)):
        return refuse("{} and {} are not known to turn by the same angles", one, two)
    return None


def _sizes(x: Value | None) -> tuple[object, object]:
    """Return how many heads there are, and of which size."""
    known = x is not None and x.shape is not None and rank(x) == 4
    return (x.shape[1], x.shape[3]) if known and x is not None and x.shape else (None, None)


def _begins_late(core: Node, query: Value) -> Declined | None:
    """Return why a sequence may be shorter than its rows, of which then none is at its place."""
    ends, whole = core.inputs[5:7]
    if any(each is not None for each in (*core.inputs[7:10], *core.inputs[11:])):
        return refuse("{} turns already, or is told more than a mask", core)
    count = None if query.shape is None else terms_of_size(query.shape[2])
    if count is None or (counted(ends), counted(whole)) != (plus(count, exactly(-1)), count):
        return refuse("{} is not known to be told that all keys count", core)
    return None


def _alike(one: Value | None, other: Value | None, deep: int = ALIKE) -> bool:
    """Return whether two values are known to be equal, cut alike from what is the same."""
    if one is other:
        return True
    constants = constant_of(one), constant_of(other)
    if constants[0] is not None and constants[1] is not None:
        small = max(constants[0].size, constants[1].size) <= SMALL
        return small and np.array_equal(constants[0].numpy(), constants[1].numpy())
    first, second = (None if each is None else each.producer() for each in (one, other))
    traits = None if first is None else traits_of(first.domain, first.op_type)
    if first is None or second is None or traits is None or traits.kind != Kind.MOVE or not deep:
        return False
    said = [(x.domain, x.op_type, len(x.inputs), {**x.attributes}) for x in (first, second)]
    pairs = zip(first.inputs, second.inputs, strict=False)
    return said[0] == said[1] and all(_alike(*pair, deep - 1) for pair in pairs)


GROUPED_ROTARY = RuleSet((rotary_of_grouped_query_attention,))
"""The operator turns what it is given by its place."""
