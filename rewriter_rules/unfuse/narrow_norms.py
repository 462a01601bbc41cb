"""Normalisations as hardware computes them that has no wider type inside.

The standard lets LayerNormalization compute its statistics in float32, which engines for half
precision do not always do: the square of 300 is beyond float16, and what comes out is finite and
wrong.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import onnx_ir as ir

from vlmpass.ir_tools.graph.describe import name_node
from vlmpass.ir_tools.graph.walk import all_nodes
from vlmpass.ir_tools.rewrite import apply_rules
from vlmpass.ir_tools.shapes.inferred import shapes_known
from vlmpass.ir_tools.types import apply, solve
from vlmpass.rewriter_rules.unfuse.contrib import (
    unfuse_simplified_layer_normalization,
    unfuse_skip_layer_normalization,
    unfuse_skip_simplified_layer_normalization,
)
from vlmpass.rewriter_rules.unfuse.embedded import EMBEDDED
from vlmpass.rewriter_rules.unfuse.standard import (
    unfuse_layer_normalization,
    unfuse_rms_normalization,
)

__all__ = ["narrow_norms"]

_ADDING = unfuse_skip_layer_normalization + unfuse_skip_simplified_layer_normalization + EMBEDDED
_NORMS = (
    unfuse_layer_normalization + unfuse_rms_normalization + unfuse_simplified_layer_normalization
)
_LAYER_NORM = 17
"""The opset that has a LayerNormalization, which stands between two rules here."""


def narrow_norms(model: ir.Model, dtype: ir.DataType) -> list[str]:
    """Spell the normalisations of a half precision in operators of that type, in place.

    Args:
        model: A model of its own; its values are typed then.
        dtype: The type.

    Returns:
        Those that stay.
    """
    apply(model, solve(model))
    names = {name for rule in _ADDING + _NORMS for op in rule.plan.root_ops for _, name in op.ops}
    ranked = any(node.op_type in names and "axis" in node.attributes for node in all_nodes(model))
    with shapes_known(model) if ranked else nullcontext(), _with_layer_norm(model):
        apply_rules(model, _ADDING)
        for node in all_nodes(model):
            if node.op_type in names and _is_of(node, dtype):
                node.attributes["stash_type"] = ir.AttrInt64("stash_type", dtype.value)
        apply_rules(model, _NORMS)
    left = (node for node in all_nodes(model) if node.op_type in names and _is_of(node, dtype))
    return [name_node(node) for node in left]


def _is_of(node: ir.Node, dtype: ir.DataType) -> bool:
    """Whether a node normalises values of a type, and gives its statistics to nobody."""
    floats = [value.dtype for value in node.inputs if value is not None and value.dtype]
    return dtype in floats and not any(value.uses() for value in node.outputs[1:3])


@contextmanager
def _with_layer_norm(model: ir.Model) -> Iterator[None]:
    """Let a model have the opset of LayerNormalization meanwhile."""
    holders: list[ir.Model | ir.Function] = [model, *model.functions.values()]
    owners = [each.opset_imports for each in holders]
    before = [each.get("") for each in owners]
    for each in owners:
        each[""] = max(each.get("", _LAYER_NORM), _LAYER_NORM)
    try:
        yield
    finally:
        for each, opset in zip(owners, before, strict=True):
            if opset is not None:
                each[""] = opset
