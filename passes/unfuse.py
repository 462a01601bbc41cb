"""The pass unfuse: fused operators said in standard or in primitive ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import onnx_ir as ir

from vlmpass.ir_tools.rewrite import apply_rules
from vlmpass.passes.pipeline.base import Done, Pass
from vlmpass.passes.pipeline.needs import Need
from vlmpass.rewriter_rules.unfuse import CONTRIB, UNFUSE

__all__ = ["Unfuse"]


@dataclass(frozen=True)
class Unfuse(Pass):
    """Say ONNX Runtime's own operators, or all fused ones, in operators that every target has."""

    name: ClassVar[str] = "unfuse"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.SHAPES})
    nothing: ClassVar[str] = "the model has no such operator"
    to: Literal["standard", "primitive"] = "standard"
    """What to say them in: standard operators where the opset has one for it and primitive ones
    where not, or primitive ones throughout, which takes standard normalisations and activations
    apart as well."""

    def run(self, model: ir.Model) -> Done:
        """Apply the rules to the main graph, its subgraphs and the functions."""
        return Done.of(apply_rules(model, UNFUSE if self.to == "primitive" else CONTRIB))
