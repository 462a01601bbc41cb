"""The pass fuse: several nodes become the one operator they spell out."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import ClassVar, Literal

import onnx_ir as ir

from vlmpass.ir_tools.rewrite import anything, apply_rules
from vlmpass.passes.fusing.call_scalars import give_numbers
from vlmpass.passes.fusing.fused_blocks import left_alone, summary
from vlmpass.passes.pipeline.base import Done, Pass
from vlmpass.passes.pipeline.needs import Need
from vlmpass.passes.pipeline.target_option import not_run, target_of
from vlmpass.rewriter_rules.fuse import FUSE

__all__ = ["Fuse"]

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fuse(Pass):
    """Find norms, activations, attention and rotary embeddings, and make each one operator.

    Nothing depends on names or model types; a look-alike that computes something else stays. In a
    function, an epsilon that its calls give stays theirs to give.
    """

    name: ClassVar[str] = "fuse"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.SHAPES, Need.NEW_SHAPES})
    nothing: ClassVar[str] = "nothing in the model is spelled out that one operator says"
    emit: Literal["standard", "ort"] = "standard"
    """Which operators to emit: those of the standard that the opset has, or ONNX Runtime's own
    (SimplifiedLayerNormalization, SkipLayerNormalization, com.microsoft::Gelu …) too."""
    target: str = ""
    """A target, or its .toml file: only what it runs is made, and not slower than without;
    whatever there is, where none is named."""

    def __post_init__(self) -> None:
        """Check that there is such a target."""
        super().__post_init__()
        if self.target:
            target_of(self.target)

    def run(self, model: ir.Model) -> Done:
        """Apply the rules to the main graph, its subgraphs and the functions."""
        emits = ["com.microsoft"] if self.emit == "ort" else []
        changed = give_numbers(model)
        unwanted = not_run(model, target_of(self.target)) if self.target else anything
        done = Done.of(apply_rules(model, FUSE, emits=emits, unwanted=unwanted), changed=changed)
        left = left_alone(model, emits)
        told = logging.WARNING if left and not self.target else logging.INFO
        _LOG.log(told, "%s", summary(model, left))
        return done
