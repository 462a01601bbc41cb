"""Defects planted into the rules, each of which the generator has to find."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import onnx_ir as ir
import pytest

from unfuse.cases import Stays, Untaken, problem
from unfuse.trials import cases
from vlmpass.passes.unfusing import unfuse
from vlmpass.rewriter_rules.opset.build import scalar
from vlmpass.rewriter_rules.unfuse import (
    attended,
    channels,
    contrib,
    dequantized,
    embedded,
    experts,
    grouped,
    key_masks,
    multihead,
    multiplied,
    packed_heads,
    projected,
    quantised_caches,
    rows,
    stored_blocks,
    tabled,
    turned,
    unpacked,
)

Function = Callable[..., Any]
TRIES = 80
GROUPED = "GroupQueryAttention"


def _later_by_one(old: Function) -> Function:
    def steps(op: Any, *given: Any) -> Any:
        found = old(op, *given)
        return grouped._Steps(op.Add(found.starts, op.const(1)), found.new, found.total)

    return steps


def _a_step_lower(old: Function) -> Function:
    return lambda how, op, new: op.Sub(old(how, op, new), op.const(1, ir.DataType.INT32))


def _wider(old: Function) -> Function:
    return lambda node, name, default=0: old(node, name, default) + (name == "local_window_size")


def _repeated_as_a_whole(old: Function) -> Function:
    def repeated(op: Any, x: Any, heads: int) -> Any:
        return op.Concat(*[x] * (heads // x.shape[1]), axis=1)

    return repeated


def _backwards(old: Function) -> Function:
    return lambda op, x, angles, *rest: old(op, x, [angles[0], op.Neg(angles[1])], *rest)


def _swapped(old: Function) -> Function:
    def rotated(op: Any, x: Any, angles: Any, half: int, interleaved: bool) -> Any:
        return old(op, x, angles, half, not interleaved)

    return rotated


def _more(old: Function) -> Function:
    return lambda op, *given: op.Add(old(op, *given), scalar(op, 1, given[-1], "more"))


def _halves_swapped(old: Function) -> Function:
    def numbers(op: Any, node: Any, kind: Any) -> Any:
        pairs = op.Reshape(old(op, node, kind), op.const([-1, 2]))
        return op.Reshape(op.Gather(pairs, op.const([1, 0]), axis=1), op.const([-1]))

    return numbers


def _hundredth_more(old: Function) -> Function:
    return lambda op, node: op.Mul(scales := old(op, node), scalar(op, 1.01, scales.dtype))


def _beta_twice(old: Function) -> Function:
    def real(op: Any, node: Any, index: int, rows: Any = None) -> Any:
        return old(op, node, 6 if index == 5 else index, rows)

    return real


PLANTED: dict[str, tuple[str, ModuleType | type, str, Callable[[Function], Function]]] = {
    "queries see later keys alone": (
        "MultiHeadAttention",
        key_masks,
        "none_later",
        lambda old: lambda op, heads: op.Not(old(op, heads)),
    ),
    "later keys are not masked": (
        "Attention",
        key_masks,
        "lowest",
        lambda old: lambda op, kind: scalar(op, 0, kind),
    ),
    "an end is included": (
        "MultiHeadAttention",
        key_masks,
        "_before",
        lambda old: lambda op, heads, ends: old(op, heads, op.Add(ends, scalar(op, 1, ends.dtype))),
    ),
    "starts are forgotten": (
        "Attention",
        key_masks,
        "_between",
        lambda old: (
            lambda op, heads, mask: key_masks._before(
                op, heads, key_masks.part(op, mask, 0, heads.query.shape[0])
            )
        ),
    ),
    "true and false of a mask are swapped": (
        "MultiHeadAttention",
        key_masks,
        "_kept",
        lambda old: lambda op, heads, mask: op.Not(old(op, heads, mask)),
    ),
    "a bias is forgotten": (
        "MultiHeadAttention",
        multihead,
        "_plus",
        lambda old: lambda op, x, *rest: x,
    ),
    "the past is forgotten": (
        "MultiHeadAttention",
        multihead,
        "_with_past",
        lambda old: lambda op, node, new, *rest: (new, new),
    ),
    "a buffer is full": (
        "DecoderMaskedMultiHeadAttention",
        multihead,
        "_with_past",
        lambda old: lambda op, node, new, past, length: old(op, node, new, past, 99),
    ),
    "heads of keys are repeated as a whole": (
        GROUPED,
        attended,
        "repeated",
        _repeated_as_a_whole,
    ),
    "a sink is forgotten": (
        GROUPED,
        grouped,
        "_sink",
        lambda old: lambda op, node: None,
    ),
    "tokens stand one later": (GROUPED, grouped, "_steps", _later_by_one),
    "a window is one wider": (GROUPED, grouped, "integer", _wider),
    "a bias ends before the cache": (
        GROUPED,
        grouped,
        "_to_the_end",
        lambda old: lambda op, node, bias, steps: bias,
    ),
    "numbers of 4 bits are one more": (GROUPED, quantised_caches, "_HALF", lambda old: 7),
    "scales of both are swapped": (GROUPED, quantised_caches, "_SCALES", lambda old: old[::-1]),
    "new keys are a step lower": (GROUPED, quantised_caches.Stored, "rounded", _a_step_lower),
    "positions that are given are not looked at": (
        "RotaryEmbedding",
        turned,
        "_places",
        lambda old: lambda op, x, given: old(op, x, op.const([0])),
    ),
    "rows and columns are swapped": (
        "MRotaryEmbedding",
        turned,
        "_streams",
        lambda old: lambda node, half: [(0, 2, 1)[each] for each in old(node, half)],
    ),
    "chunks are not padded": (
        GROUPED,
        grouped,
        "optional_input",
        lambda old: lambda node, index: None if index == 16 else old(node, index),
    ),
    "what is not causal looks at padding": (
        GROUPED,
        grouped,
        "_ends",
        lambda old: lambda op, node: op.Add(old(op, node), op.const(1)),
    ),
    "angles turn backwards": ("RotaryEmbedding", turned, "_rotated", _backwards),
    "neighbours and halves are swapped": ("RotaryEmbedding", turned, "_rotated", _swapped),
    "a zero point is one more": ("MatMulNBits", stored_blocks, "_zeros", _more),
    "zero points are forgotten": (
        "MatMulNBits",
        stored_blocks,
        "_float_zeros",
        lambda old: lambda op, packed: scalar(op, 0, packed.scales.dtype),
    ),
    "the lower half of a byte comes first": ("MatMulBnb4", tabled, "_numbers", _halves_swapped),
    "what blocks are scaled by is a little more": (
        "MatMulBnb4",
        tabled,
        "_scales",
        _hundredth_more,
    ),
    "gamma has the numbers of beta": ("QEmbedLayerNormalization", embedded, "_real", _beta_twice),
    "positions that are given are counted": (
        "EmbedLayerNormalization",
        embedded,
        "optional_input",
        lambda old: lambda node, index: None if index == 8 else old(node, index),
    ),
    "tokens without segments are of none": (
        "EmbedLayerNormalization",
        embedded,
        "optional_input",
        lambda old: (
            lambda node, index: None if index == 4 and old(node, 1) is None else old(node, index)
        ),
    ),
    "what a mask says is summed": (
        "EmbedLayerNormalization",
        embedded,
        "_lengths",
        lambda old: (
            lambda op, node: (
                op.ReduceSum(node.inputs[7], op.const([1]), keepdims=0)
                if len(node.inputs) > 7 and node.inputs[7] is not None
                else old(op, node)
            )
        ),
    ),
    "sizes that nobody knows are equal": (
        "MultiHeadAttention",
        key_masks,
        "same_size",
        lambda old: lambda one, other: one == other,
    ),
    "a mask is for others than the keys": (
        "MultiHeadAttention",
        key_masks,
        "_suits",
        lambda old: lambda *given: None,
    ),
    "a mask that stands for none counts": (
        "Attention",
        projected,
        "added",
        lambda old: lambda *given, **rest: old(*given, **{**rest, "placeholder": False}),
    ),
    "blocks are of inputs that follow each other": (
        "MatMulNBits",
        unpacked,
        "by_groups",
        lambda old: lambda op, packed, groups: stored_blocks.dequantized(op, packed),
    ),
    "a half is rounded before the zero point is added": (
        "QLinearAdd",
        dequantized,
        "_half_to_even",
        lambda old: dequantized._whole,
    ),
    "the first of equal experts is taken": (
        "MoE",
        experts,
        "_shares",
        lambda old: (
            lambda op, node, weights: (
                old(op, node, weights)
                if len(node.inputs) < 2
                else op.Unsqueeze(
                    op.Transpose(op.Softmax(node.inputs[1], axis=-1), perm=[1, 0]), axes=[2]
                )
            )
        ),
    ),
    "zero points of rows are of blocks": (
        "QMoE",
        experts,
        "Blocks",
        lambda old: lambda *given: old(*given[:-1], 0),
    ),
    "a type is newer than the file": (
        "MatMulNBits",
        unfuse,
        "raise_ir_version",
        lambda old: lambda model: None,
    ),
    "an epsilon is forgotten": (
        "SkipLayerNormalization",
        contrib,
        "layer_norm",
        lambda old: lambda op, x, scale, bias, epsilon: old(op, x, scale, bias, 1e-5),
    ),
    "Gelu is approximated": (
        "BiasGelu",
        contrib,
        "gelu",
        lambda old: (
            lambda op, x, approximate: old(op, op.Mul(x, scalar(op, 1.01, x.dtype)), "tanh")
        ),
    ),
    "operands are not turned": (
        "FusedMatMul",
        multiplied,
        "_turned",
        lambda old: lambda op, node, index: node.inputs[index],
    ),
    "an activation is forgotten": (
        "FusedConv",
        multiplied,
        "_active",
        lambda old: lambda op, node, x, numbers: x,
    ),
    "channels come first": (
        "QLinearAveragePool",
        dequantized,
        "_turned",
        lambda old: lambda op, x, run: run(x),
    ),
    "a bias of a quantised product is forgotten": (
        "MatMulIntegerToFloat",
        dequantized,
        "_scaled",
        lambda old: lambda op, inputs, scale, bias, kind: old(op, inputs, scale, None, kind),
    ),
    "a zero point of a product is forgotten": (
        "QGemm",
        dequantized,
        "_less_zero",
        lambda old: lambda op, node, start, name: op.Cast(node.inputs[start], to=1),
    ),
    "keys are handed on twice": (
        "Attention",
        projected,
        "_both",
        lambda old: lambda op, heads: old(op, attended.Heads(heads.query, heads.key, heads.key)),
    ),
    "sequences are as long as the batch": (
        "PackedAttention",
        projected,
        "added",
        lambda old: lambda op, heads, mask, bias, **rest: bias,
    ),
    "a bias of packed tokens is forgotten": (
        "PackedMultiHeadAttention",
        packed_heads,
        "gathered",
        lambda old: lambda op, node, tokens, heads, bias: old(op, node, tokens, heads, None),
    ),
    "all channels are one group": (
        "GroupNorm",
        channels,
        "integer",
        lambda old: (
            lambda node, name, default=0: 1 if name == "groups" else old(node, name, default)
        ),
    ),
    "zero points of rows are forgotten": (
        "GatherBlockQuantized",
        rows,
        "_zeros",
        lambda old: lambda op, node: scalar(op, 0, node.inputs[2].dtype),
    ),
}


def found_in(operator: str) -> bool:
    """Whether the generator finds something wrong, or stops at an exception."""
    for _, case in cases(operator, 2026, TRIES):
        try:
            if problem(case):
                return True
        except (Stays, Untaken):
            continue
        except Exception:  # noqa: BLE001 - a defect may show as any
            return True
    return False


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_defect_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    operator, module, attribute, plant = PLANTED[name]
    monkeypatch.setattr(module, attribute, plant(getattr(module, attribute)))
    assert found_in(operator)
