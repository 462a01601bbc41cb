"""PackedMultiHeadAttention: attention within sequences whose padding was taken away."""

from __future__ import annotations

import onnx_ir as ir

from vlmpass.ir_tools.graph.tape import Tape
from vlmpass.rewriter_rules.opset.build import part, size_at
from vlmpass.rewriter_rules.opset.queries import integer, operand, optional_input, rank
from vlmpass.rewriter_rules.opset.table import CannotConvert, Outputs
from vlmpass.rewriter_rules.unfuse.attended import Heads, by_head, known_size
from vlmpass.rewriter_rules.unfuse.projected import gathered, padded, spread_out
from vlmpass.rewriter_rules.unfuse.unfused import floats, unfused

__all__ = ["PACKED_HEADS"]


@unfused("PackedMultiHeadAttention")
def unfuse_packed_multi_head_attention(op: Tape, node: ir.Node) -> Outputs:
    """PackedMultiHeadAttention(q, k, v, b, o, n, e) -> Softmax(q @ k^T + e) @ v of each sequence.

    ONNX Runtime has it for GPUs alone; its documentation says what it computes.
    """
    floats(node, 0, 1, 2, 3, 6)
    parts, count = _parts(op, node), integer(node, "num_heads")
    tokens = spread_out(op, node, 4, size_at(op, operand(node, 0), 0))
    query, key, value = (by_head(op, padded(op, tokens, each), count) for each in parts)
    return gathered(op, node, tokens, Heads(query, key, value), optional_input(node, 6))


def _parts(op: Tape, node: ir.Node) -> list[ir.Value]:
    """Record queries, keys and values, their bias added."""
    given = [optional_input(node, index) for index in range(3)]
    parts = [each for each in given if each is not None]
    if len(parts) != 3 or rank(parts[0]) != 2:
        raise CannotConvert("its queries, keys and values are packed in one tensor")
    bias, start, found = optional_input(node, 3), 0, []
    for each in parts:
        end = start + known_size(each, -1, f"the last size of {each.name}")
        found.append(each if bias is None else op.Add(each, part(op, bias, start, end)))
        start = end
    return found


PACKED_HEADS = unfuse_packed_multi_head_attention
