"""The pass simplify: fewer nodes, same values, by the rules of `rewriter_rules.simplify`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from vlmpass.ir_tools.rewrite import anything, apply_rules
from vlmpass.passes.pipeline.base import Done, Pass
from vlmpass.passes.pipeline.needs import Need
from vlmpass.passes.pipeline.target_option import target_of, worse
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
    target: str = ""
    """A target, or its .toml file: what it does not run never stands for what it runs."""

    def __post_init__(self) -> None:
        """Check that there is such a target."""
        super().__post_init__()
        if self.target:
            target_of(self.target)

    def run(self, model: ir.Model) -> Done:
        """Apply the rules to the main graph, its subgraphs and the functions."""
        unwanted = worse(model, target_of(self.target)) if self.target else anything
        rewrites = apply_rules(model, SIMPLIFY, fast_math=self.fast_math, unwanted=unwanted)
        return Done.of(rewrites)
