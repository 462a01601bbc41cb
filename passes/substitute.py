"""The pass that replaces operators no runtime has by what they mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from vlmpass.ir_tools.errors import Refusal, Refused
from vlmpass.ir_tools.graph.edit import remove_unused_constant
from vlmpass.ir_tools.graph.walk import all_nodes
from vlmpass.ir_tools.rewrite import apply_rules, explain
from vlmpass.passes.pipeline.base import Done, Pass
from vlmpass.rewriter_rules.substitute.aten import ATEN_RESIZES, aten_antialiased_resize, kernel_of

__all__ = ["Substitute"]


@dataclass(frozen=True)
class Substitute(Pass):
    """Replace antialiased PyTorch resizes that an exporter left behind by ONNX operators."""

    name: ClassVar[str] = "substitute"
    nothing: ClassVar[str] = "the model has no resize that PyTorch left behind"

    def run(self, model: ir.Model) -> Done:
        """Rewrite in place; every node of a known kind that cannot be replaced is listed."""
        operands = dict.fromkeys(
            value
            for node in all_nodes(model)
            if kernel_of(node) is not None
            for value in node.inputs
            if value is not None
        )
        changed = apply_rules(model, ATEN_RESIZES)
        for value in operands:
            remove_unused_constant(value)
        left = [node for node in all_nodes(model) if kernel_of(node) is not None]
        if left:
            raise Refused("substitute", [_refusal(model, node) for node in left])
        return Done.of(changed)


def _refusal(model: ir.Model, node: ir.Node) -> Refusal:
    name = node.name or node.outputs[0].name or ""
    (attempt, *_) = explain(aten_antialiased_resize, model, near=name)
    return Refusal(attempt.node, attempt.reason)
