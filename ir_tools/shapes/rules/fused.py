"""Operators of ONNX Runtime's own that do what a whole block of a transformer does."""

from __future__ import annotations

from collections.abc import Sequence

from vlmpass.ir_tools.shapes.algebra import Dim, mul
from vlmpass.ir_tools.shapes.call import Call
from vlmpass.ir_tools.shapes.known import UNKNOWN, Known
from vlmpass.ir_tools.shapes.shape_rules import shape_rule

__all__: list[str] = []

_ORT = "com.microsoft"


_PAST = {"GroupQueryAttention": (3, 4), "MultiHeadAttention": (6, 7)}
"""Where caches go in; they come out behind the result, in the same order."""


def _first(call: Call, shape: tuple[Dim, ...] | None) -> Sequence[Known]:
    """Say the shape of the first output, and of caches all but their length, which grows."""
    found = [UNKNOWN] * len(call.node.outputs)
    found[0] = UNKNOWN if shape is None else Known(shape)
    for output, index in enumerate(_PAST.get(call.node.op_type, ()), 1):
        past = call.shape(index)
        if output < len(found) and past is not None and len(past) == 4:
            found[output] = Known((*past[:2], call.fresh(4, output)[2], past[3]))
    return found


@shape_rule("SkipLayerNormalization SkipSimplifiedLayerNormalization", _ORT)
def _skip(call: Call) -> Sequence[Known]:
    """Say that result and sum are shaped like what enters."""
    same = Known(call.shape(0))
    return [same, UNKNOWN, UNKNOWN, same][: len(call.node.outputs)]


@shape_rule("GroupQueryAttention", _ORT)
def _grouped(call: Call) -> Sequence[Known]:
    """Say that the result is as wide as the queries, packed with keys and values or not."""
    query, heads = call.shape(0), call.get_int("num_heads", 0)
    if query is None or len(query) != 3 or call.has(1):
        return _first(call, query)
    whole = heads + 2 * call.get_int("kv_num_heads", 0)
    width = query[2]
    if not isinstance(width, int) or not whole or width % whole:
        return _first(call, (*query[:2], call.fresh(3)[2]))
    return _first(call, (*query[:2], width // whole * heads))


@shape_rule("MultiHeadAttention DecoderMaskedMultiHeadAttention", _ORT)
def _multihead(call: Call) -> Sequence[Known]:
    """Say that the result is as wide as the values of all heads."""
    query, key, value = (call.shape(index) for index in range(3))
    if query is None or len(query) not in (3, 5):
        return _first(call, None)
    packed = query if len(query) == 5 else key if key and len(key) == 5 else None
    if packed is not None:
        return _first(call, (*query[:2], mul(packed[2], packed[4])))
    if value is None or len(value) not in (3, 4):
        return _first(call, (*query[:2], call.fresh(3)[2]))
    return _first(call, (*query[:2], value[2] if len(value) == 3 else mul(value[1], value[3])))


@shape_rule("Attention QAttention", _ORT)
def _projected(call: Call) -> Sequence[Known]:
    """Say that the result is as wide as the values that the weights make."""
    x, weights, sizes = call.shape(0), call.shape(1), call.get_ints("qkv_hidden_sizes")
    if x is None or len(x) != 3 or weights is None or len(weights) != 2:
        return _first(call, None)
    width = sizes[2] if sizes else call.algebra.floordiv(weights[1], 3)
    return _first(call, (*x[:2], width))


@shape_rule("QEmbedLayerNormalization", _ORT)
@shape_rule("EmbedLayerNormalization", _ORT)
def _embedded(call: Call) -> Sequence[Known]:
    """Say that there is a row of the table for every token."""
    ids, words = call.shape(0), call.shape(2)
    if ids is None or words is None or len(words) != 2:
        return _first(call, None)
    found = Known((*ids, words[1]))
    return [found, UNKNOWN, found][: len(call.node.outputs)]


@shape_rule("GatherBlockQuantized", _ORT)
def _rows(call: Call) -> Known:
    """Say that there is a row of blocks for every index."""
    index, scales = call.shape(1), call.shape(2)
    last = call.get_int("quantize_axis", 1) in (1, -1) and call.get_int("gather_axis", 0) == 0
    if index is None or scales is None or len(scales) != 2 or not last:
        return UNKNOWN
    width = scales[1]
    if isinstance(width, int) and width > 1:
        return Known((*index, width * call.get_int("block_size", 128)))
    return UNKNOWN
