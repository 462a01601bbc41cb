"""The pass that makes every node one that a target runs, or says of all of them why not."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import onnx_ir as ir

from vlmpass.ir_tools.errors import Refused
from vlmpass.ir_tools.graph.clone import clone
from vlmpass.ir_tools.graph.walk import all_nodes
from vlmpass.passes.legalize.cancel import cancel
from vlmpass.passes.legalize.interface import unbound, widen_interface
from vlmpass.passes.legalize.narrowing import narrow, narrowed_copy, with_ranges
from vlmpass.passes.legalize.planning import LegalPlanner
from vlmpass.passes.legalize.preparing import is_to_prepare, prepare
from vlmpass.passes.legalize.remedies import NARROW_RULE
from vlmpass.passes.pipeline.base import Done, Pass
from vlmpass.passes.pipeline.needs import Need
from vlmpass.passes.pipeline.target_option import target_of
from vlmpass.passes.unfusing.in_floats import InFloats, telling
from vlmpass.rewriter_rules.opset.plan import ConversionPlan
from vlmpass.rewriter_rules.substitute.approximate import APPROXIMATE

__all__ = ["Legalize"]

_LOG = logging.getLogger(__name__)
_NEARLY = {NARROW_RULE, *(each.name for each in APPROXIMATE)}


@dataclass(frozen=True)
class Legalize(Pass):
    """Make every node one that a target runs, at the opset that the model has."""

    name: ClassVar[str] = "legalize"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.SHAPES})
    nothing: ClassVar[str] = "the target runs every node already"

    target: str
    """The target's name, or its .toml file; see `vlmpass targets`."""

    interface: Literal["keep", "wider"] = "keep"
    """Whether inputs and outputs of a type that the target binds no values of keep it, so that the
    model is refused, or take a wider one."""

    allow: Literal["exact", "approximate"] = "exact"
    """Whether what stands for a node may compute it nearly, where nothing exact does: float64 in
    float32, and functions by others. What is off by that is what the comparison measures."""

    def __post_init__(self) -> None:
        """Check that there is such a target."""
        super().__post_init__()
        target_of(self.target)

    def mending(self) -> Pass:
        """Return what lets the products that the target does not run compute in floats."""
        return _InFloats(self.target)

    def run(self, model: ir.Model) -> Done:
        """Rewrite in place; nothing is edited unless every node is legal afterwards."""
        with telling(model):
            try:
                return self._widened(model) if self.interface == "wider" else self._run(model)
            except Refused as error:
                raise self._hinting(error, model) from None

    def _widened(self, model: ir.Model) -> Done:
        """Widen inputs and outputs first, if the rest can be done then."""
        target = target_of(self.target)
        if not any(wide for _, _, wide in unbound(model, target)):
            return self._run(model)
        trial = clone(model)
        widen_interface(trial, target)
        self._run(trial)
        widen_interface(model, target)
        return replace(self._run(model), changed=True)

    def _hinting(self, error: Refused, model: ir.Model) -> Refused:
        """Return a refusal that also says which nodes could be said nearly."""
        if self.allow == "approximate":
            return error
        planner = LegalPlanner(model, target_of(self.target), approximate=True)
        helped = {planner.refusal(each).node for each in planner.illegal if each.decided}
        try:
            planner.plan()
        except Refused as other:
            helped -= {each.node for each in other.refusals}
        hint = "--allow approximate says it nearly"
        told = [
            replace(each, remedy=f"{each.remedy}; {hint}") if each.node in helped else each
            for each in error.refusals
        ]
        return Refused(error.request, told)

    def _run(self, model: ir.Model) -> Done:
        try:
            return self._legalized(model)
        except Refused as error:
            planner = self._planner(model)
            trial = narrowed_copy(planner)
            if trial is None:
                raise with_ranges(error, planner) from None
            try:
                self._legalized(trial)
            except Refused as left:
                raise with_ranges(left, planner) from None
            narrow(model, planner)
            return replace(self._legalized(model), changed=True)

    def _legalized(self, model: ir.Model) -> Done:
        """Do without what changes types of integers all over the model."""
        planner = self._planner(model)
        if not planner.illegal:
            return Done(False)
        prepared = False
        if is_to_prepare(planner):
            trial = clone(model)
            prepare(trial, planner)
            self._planner(trial).plan()
            prepared = prepare(model, planner)
            planner = self._planner(model)
        plan = planner.plan()
        if not plan.replacements:
            return Done(prepared)
        plan.apply()
        cancel(all_nodes(model))
        _tell_nearly(plan)
        return Done(True, plan.changes)

    def _planner(self, model: ir.Model) -> LegalPlanner:
        return LegalPlanner(model, target_of(self.target), self.allow == "approximate")


@dataclass(frozen=True)
class _InFloats(InFloats):
    """Let products that a target does not run compute in floats, where they are to be unfused."""

    target: str

    def chosen(self, model: ir.Model, found: list[ir.Node]) -> list[ir.Node]:
        """Return those of them that the target does not run."""
        illegal = {each.node for each in LegalPlanner(model, target_of(self.target)).illegal}
        return [node for node in found if node in illegal]


def _tell_nearly(plan: ConversionPlan) -> None:
    """Log what is computed nearly from now on."""
    found: Counter[tuple[str, str]] = Counter()
    for each in plan.replacements:
        rules = {node.metadata_props.get("vlmpass.rule") for node in each.built.tape.nodes}
        found.update((each.node.op_type, str(rule)) for rule in rules & _NEARLY)
    told = [f"{operator} by {rule} ({count})" for (operator, rule), count in sorted(found.items())]
    if told:
        _LOG.warning("legalize: computed nearly: %s", ", ".join(told))
