"""The pass that brings a whole model to another opset, or refuses with every reason at once."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import onnx_ir as ir

from vlmpass.ir_tools.errors import Refused
from vlmpass.ir_tools.graph.names import Names
from vlmpass.ir_tools.system.opsets import OLDEST_OPSET, newest_opset
from vlmpass.ir_tools.types import solve
from vlmpass.ir_tools.types.cast_nodes import remove_needless
from vlmpass.passes.pipeline.base import Done, OptionError, Pass
from vlmpass.passes.pipeline.needs import Need
from vlmpass.rewriter_rules.opset import Change, Planner, fit_inputs, stamp
from vlmpass.rewriter_rules.opset.restamp import advised
from vlmpass.rewriter_rules.opset.stamp import imported_opsets

__all__ = ["AUTO_OPSET", "ConvertOpset"]

_LOG = logging.getLogger(__name__)
_NO_RANKS = 13
"""From this opset on, no step up asks for a rank."""
_NAMED = 4
"""Inputs or outputs of one type that are named in a line."""

AUTO_OPSET = 21
"""The opset at which ONNX Runtime has kernels for the most operators."""


@dataclass(frozen=True)
class ConvertOpset(Pass):
    """Bring graphs, subgraphs and functions to one opset of the default domain."""

    name: ClassVar[str] = "convert-opset"
    nothing: ClassVar[str] = "the model is at that opset already"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.SHAPES})

    to: int | Literal["lowest", "auto"]
    """Opset to convert to; `lowest` is the lowest that needs no rewriting, `auto` is 21, or the
    next that the model can be converted to."""

    interface: Literal["keep", "wider"] = "keep"
    """Whether inputs and outputs of a type that the opset does not have keep it, so that the model
    is refused, or take a type that holds all its values: int8 for int4, float16 for float8."""

    def __post_init__(self) -> None:
        """Check that the installed onnx knows the opset."""
        super().__post_init__()
        if isinstance(self.to, int) and not OLDEST_OPSET <= self.to <= newest_opset():
            raise OptionError(
                "to",
                f"opset {self.to} is out of range",
                remedy=f"choose one from {OLDEST_OPSET} to {newest_opset()}",
            )

    def needed(self, model: ir.Model) -> frozenset[Need]:
        """Some steps down, and those from before 13, depend on ranks that nobody wrote down."""
        to, opsets = self.to, imported_opsets(model)
        plain = isinstance(to, int) and all(_NO_RANKS <= each <= to for each in opsets)
        return frozenset() if plain else self.needs

    def run(self, model: ir.Model) -> Done:
        """Convert in place; nothing is edited unless every node can be converted."""
        planner = Planner(model, self.interface)
        try:
            target = self._target(planner)
            plan = planner.plan(target)
        except Refused as refused:
            raise advised(model, refused) from None
        plan.apply()
        _tell(plan.widening.changes, target)
        if self.interface == "wider" and not plan.widening.changes:
            _LOG.warning(
                "interface=wider: opset %d has the types of every input and output", target
            )
        fitted = fit_inputs(model, target)
        changed = stamp(model, target) or fitted or bool(plan.replacements)
        if plan.widening:
            remove_needless(model, solve(model), Names.of(model))
        return Done(changed, plan.changes)

    def _target(self, planner: Planner) -> int:
        if self.to == "lowest":
            return planner.lowest()
        return planner.nearest(AUTO_OPSET) if self.to == "auto" else self.to


def _tell(changes: Sequence[Change], opset: int) -> None:
    """Warn of inputs and outputs that have another element type, one line for each type."""
    grouped: dict[tuple[str, str, str], list[str]] = {}
    for each in changes:
        old, new = each.old.name.lower(), each.new.name.lower()
        grouped.setdefault((each.side, old, new), []).append(each.name)
    for (side, old, new), names in grouped.items():
        said = ", ".join(names[:_NAMED])
        if len(names) > _NAMED:
            said += f" and {len(names) - _NAMED} more"
        what = side if len(names) == 1 else f"{side}s"
        _LOG.warning("%s %s: %s -> %s (opset %d has no %s)", what, said, old, new, opset, old)
