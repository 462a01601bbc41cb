"""The pass simplify: fewer nodes, same values, by the rules of `rewriter_rules.simplify`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from vlmpass.ir_tools.rewrite import apply_rules
from vlmpass.passes.pipeline.base import Done, Pass
from vlmpass.passes.pipeline.needs import Need
from vlmpass.rewriter_rules.simplify import SIMPLIFY

__all__ = ["Simplify"]


@dataclass(frozen=True)
class Simplify(Pass):
    """Remove nodes that do nothing and let one node do what several did."""

    name: ClassVar[str] = "simplify"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.SHAPES})
    nothing: ClassVar[str] = "nothing to simplify"
    keeps_values: ClassVar[bool] = True
    fast_math: bool = False
    """Whether to use rules that change values beyond rounding too."""

    def run(self, model: ir.Model) -> Done:
        """Apply the rules to the main graph, its subgraphs and the functions."""
        return Done.of(apply_rules(model, SIMPLIFY, fast_math=self.fast_math))
