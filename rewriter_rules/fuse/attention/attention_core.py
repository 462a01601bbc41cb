"""Softmax(Q K^T scale + mask) V, in all its spellings, as one operator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from onnx_ir import DataType, Value

from vlmpass.ir_tools.graph.symbols import same_size
from vlmpass.ir_tools.operators.dtypes import holds_all
from vlmpass.ir_tools.rewrite import (
    Declined,
    P,
    Replacement,
    RuleSet,
    Tape,
    refuse,
    rule,
)
from vlmpass.rewriter_rules.fuse.attention.attention_masks import (
    combined,
    for_rows,
    is_finite,
    lowest,
    spread,
    without_lowest,
    without_nothing,
)
from vlmpass.rewriter_rules.fuse.attention.causal import Parts, frontier_of_all, unfit
from vlmpass.rewriter_rules.fuse.attention.grouped_queries import grouped_query_attention
from vlmpass.rewriter_rules.fuse.attention.key_heads import Heads, heads_of, turned_back
from vlmpass.rewriter_rules.fuse.attention.runtime_forms import (
    for_runtime,
    multi_head_attention,
)
from vlmpass.rewriter_rules.fuse.attention.scores import Mask, scores_of
from vlmpass.rewriter_rules.fuse.spellings import ORT
from vlmpass.rewriter_rules.simplify.known import FLOATS, rank

__all__ = ["CORES"]


@dataclass(frozen=True)
class Core:
    """What attention is computed of.

    Attributes:
        query: [batch, heads, queries, size].
        key: Keys, before they were repeated for heads of queries.
        value: Values likewise.
        mask: What is added to scores, with a row for each query and a column for each key.
        scale: What the product is multiplied with.
        cap: What bounds the scaled product, 0.0 for nothing.
        masks: What the mask is put together of.
    """

    query: Value
    key: Value
    value: Value
    mask: Value | None = None
    scale: float = 1.0
    cap: float = 0.0
    masks: Sequence[Mask] = ()

    @property
    def inputs(self) -> list[Value | None]:
        """Of the standard's operator."""
        return [self.query, self.key, self.value, self.mask]

    @property
    def heads(self) -> object:
        """How many heads keys have."""
        return self.key.shape[1] if self.key.shape is not None else None

    @property
    def attributes(self) -> dict[str, object]:
        """Of the standard's operator."""
        return {"scale": self.scale, "softcap": self.cap or None}


def _core(op: Tape, rows: Value, value: Value, *, guarded: bool) -> Core | Declined:
    """Return what attention is computed of, if it is known to belong together."""
    scores = scores_of(rows)
    if isinstance(scores, Declined):
        return scores
    core = _operands(op, scores.query, scores.turned, value)
    if isinstance(core, Declined):
        return core
    dtype = core.query.dtype
    if dtype is None or dtype not in FLOATS:
        return refuse("the element type of {} is not known to be a float", core.query)
    values = [mask.value for mask in scores.masks]
    core = replace(core, query=for_rows(op, core.query, values))
    mask = _mask(op, scores.masks, core, dtype, guarded=guarded)
    if isinstance(mask, Declined):
        return mask
    return replace(core, mask=mask, masks=scores.masks, scale=scores.scale, cap=scores.cap)


def _mask(
    op: Tape, masks: Sequence[Mask], core: Core, dtype: DataType, *, guarded: bool
) -> Value | Declined | None:
    """Return one mask for all of them, of which the operator makes what Softmax makes."""
    own = for_runtime(op, "Attention")
    whole = combined(op, masks, dtype, float(dtype.min) if own else lowest(dtype))
    if whole is None or isinstance(whole, Declined):
        return whole
    if not own:
        whole = without_lowest(op, whole, dtype)
        whole = whole if guarded else without_nothing(op, whole, dtype)
    operands = core.query, core.key, core.value
    return spread(op, whole, [mask.value for mask in masks], operands)


def _operands(op: Tape, query: Value, turned: Value, value: Value) -> Core | Declined:
    """Return queries, keys and values if they are known to belong together."""
    key = turned_back(op, turned)
    if isinstance(key, Declined):
        return key
    keys, values = heads_of(key), heads_of(value)
    if keys.times != values.times:
        keys, values = Heads(key, 1), Heads(value, 1)
    if rank(query) != 4 or rank(keys.value) != 4 or rank(values.value) != 4:
        return refuse("{}, {} and {} are not all of 4 axes", query, keys.value, values.value)
    return _belonging(query, keys, values)


def _belonging(query: Value, keys: Heads, values: Heads) -> Core | Declined:
    shapes = [shape for each in (query, keys.value, values.value) if (shape := each.shape)]
    batch, heads = [shape[0] for shape in shapes], [shape[1] for shape in shapes]
    if not all(same_size(batch[0], size) for size in batch):
        return refuse("{} and {} are not known to have one batch size", query, keys.value)
    if any(shape[2] == 0 for shape in shapes):
        return refuse("{} or {} has no queries or no keys", query, keys.value)
    if any(not isinstance(size, int) for size in heads):
        return refuse("the number of heads of {} or {} is not known", query, keys.value)
    if heads[1] != heads[2] or heads[0] != heads[1] * keys.times:
        return refuse("{} heads of queries, {} of keys, {} of values", *heads)
    return Core(query, keys.value, values.value)


SOFTMAX = P.maybe.Cast(P.Softmax(P.maybe.Cast("rows", to="wide"), axis=-1), to="narrow")
PROBABILITIES = P.Where(P.IsNaN(SOFTMAX), 0.0, SOFTMAX).named("guarded") | SOFTMAX
"""What a guard makes of rows of which nothing is left is what the operator does with them."""


@rule(P.MatMul(PROBABILITIES, "value"), opset=(23, None), or_emits=ORT)
def attention(
    op: Tape,
    rows: Value,
    value: Value,
    wide: DataType | None,
    narrow: DataType | None,
    guarded: Value | None,
) -> Replacement:
    """Softmax(q k^T scale + mask) v -> Attention(q, k, v, mask)."""
    core = _core(op, rows, value, guarded=guarded is not None)
    if isinstance(core, Declined):
        return core
    if wide is not None and not holds_all(wide, core.query.dtype):
        return refuse("{} scores are made {} for their Softmax", core.query.dtype, wide)
    if for_runtime(op, "Attention"):
        return _own(op, core, guarded=guarded is not None)
    return op.node("Attention", core.inputs, {**core.attributes, "softmax_precision": wide})[0]


def _own(op: Tape, core: Core, *, guarded: bool) -> Replacement:
    """Build one of ONNX Runtime's own operators, where one can say that."""
    if guarded and not is_finite(core.mask):
        return refuse("MultiHeadAttention makes NaN of a row that a guard makes 0")
    made = _alone(op, core)
    return _grouped(op, core, made) if isinstance(made, Declined) else made


def _alone(op: Tape, core: Core) -> Replacement:
    """Build ONNX Runtime's own operator for as many heads of keys as of queries."""
    if core.cap or core.query.shape is None or core.query.shape[1] != core.heads:
        return refuse("MultiHeadAttention has no cap and no groups of heads; opset 23 has")
    operands, frontier = (core.query, core.key, core.value), frontier_of_all(core.masks)
    parts = Parts(core.query, core.key)
    if frontier is None or frontier.window is not None or unfit(frontier, parts) is not None:
        return multi_head_attention(op, *operands, core.mask, core.scale)
    return multi_head_attention(op, *operands, None, core.scale, causal=True)


def _grouped(op: Tape, core: Core, other: Declined) -> Replacement:
    """Build ONNX Runtime's own operator for grouped heads, or say why neither is it."""
    operands = core.query, core.key, core.value
    made = grouped_query_attention(op, operands, core.masks, core.mask, core.attributes)
    if isinstance(made, Declined):
        return refuse("{}; GroupQueryAttention: {}", other, made)
    return made


CORES = RuleSet((attention,))
