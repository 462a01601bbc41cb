"""What fusing made one operator and what it left alone, in one line."""

from __future__ import annotations

from collections.abc import Collection

import onnx_ir as ir

from vlmpass.ir_tools.graph.walk import all_nodes
from vlmpass.ir_tools.rewrite import explain
from vlmpass.rewriter_rules.fuse.attention import CORES

__all__ = ["left_alone", "summary"]

GROUPED = "GroupQueryAttention"
FUSED = ("Attention", "MultiHeadAttention", GROUPED)
SPELLED_OUT = 2
"""Nodes of the pattern that make a product one of probabilities."""


def left_alone(model: ir.Model, emits: Collection[str]) -> list[str]:
    """Return why attention was left as it is, a line for each.

    Args:
        model: The model after fusing.
        emits: The domains beyond the standard one whose operators were welcome.
    """
    opset = model.opset_imports.get("")
    return [
        f"{attempt.reason} at {attempt.node}"
        for rule in CORES
        if rule.offered(opset, emits, False)
        for attempt in explain(rule, model)
        if not attempt.applies and attempt.matched >= SPELLED_OUT
    ]


def _heads(node: ir.Node, index: int) -> int | ir.SymbolicDim | None:
    value = node.inputs[index]
    shape = None if value is None else value.shape
    return shape[1] if shape is not None and len(shape) == 4 else None


def _count(node: ir.Node, name: str) -> int:
    given = node.attributes.get(name)
    return 0 if given is None or given.is_ref() else given.as_int()


def summary(model: ir.Model, left: Collection[str]) -> str:
    """Return what is one operator now, counted on the graph, and what is not.

    Args:
        model: The model after fusing.
        left: From `left_alone`.
    """
    cores = [each for each in all_nodes(model) if each.op_type in FUSED]
    own = [each for each in cores if each.op_type == GROUPED]
    grouped = sum(_heads(each, 0) != _heads(each, 1) for each in cores if not each.domain)
    grouped += sum(_count(each, "num_heads") != _count(each, "kv_num_heads") for each in own)
    rotary = sum(each.op_type == "RotaryEmbedding" for each in all_nodes(model))
    causal = sum(_count(each, "is_causal") for each in cores)
    causal += sum(each.attributes.get_int("causal", 1) for each in own)
    cached = sum(len(each.outputs) > 1 for each in cores if each.op_type != GROUPED)
    cached += sum([*each.inputs, *[None] * 4][3] is not None for each in own)
    kinds = {"with grouped heads": grouped, "causal": causal, "with their past": cached}
    more = ", ".join(f"{count} {kind}" for kind, count in kinds.items() if count)
    told = [f"{len(cores)} attention" + (f" ({more})" if more else "")] if cores else []
    if rotary:
        told.append(f"{rotary} rotary embeddings")
    text = f"fused: {', '.join(told) or 'no attention'}"
    first = next(iter(left), "")
    return f"{text}; not fused: {len(left)} attention ({first})" if left else text
