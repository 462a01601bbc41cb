"""What a model needs to be legal for a target: planned in full before anything is edited."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from functools import cached_property

import onnx_ir as ir

from vlmpass.ir_tools.errors import Refusal, Refused
from vlmpass.ir_tools.graph.names import Names
from vlmpass.ir_tools.graph.walk import Scope, left_out_at_calls, scopes
from vlmpass.ir_tools.rewrite.alignment import MatchContext
from vlmpass.ir_tools.rewrite.constant_values import Constants
from vlmpass.ir_tools.shapes.inferred_functions import last_axes
from vlmpass.ir_tools.targets import Context, Profile, Verdict, why_not
from vlmpass.ir_tools.targets.remedies import deciding
from vlmpass.ir_tools.types import Typing, solve
from vlmpass.ir_tools.types.integral import integer_arithmetic
from vlmpass.passes.legalize.remedies import Remedies, is_decided
from vlmpass.rewriter_rules.opset.conversion import Built
from vlmpass.rewriter_rules.opset.element_types.widen import Widening
from vlmpass.rewriter_rules.opset.plan import ConversionPlan, Replacement
from vlmpass.rewriter_rules.opset.shape_overlay import ShapeOverlay
from vlmpass.rewriter_rules.opset.table import CannotConvert
from vlmpass.rewriter_rules.opset.view import ModelView

__all__ = ["Illegal", "LegalPlanner", "better_opset"]


@dataclass(frozen=True)
class Illegal:
    """A node that a target does not run.

    Attributes:
        scope: The graph or function that it stands in.
        node: The node.
        verdict: What the target does with it.
        decided: Whether the profile keeps it from running, see `is_decided`.
    """

    scope: Scope
    node: ir.Node
    verdict: Verdict
    decided: bool


def better_opset(model: ir.Model, target: Profile) -> int | None:
    """Return the opset a target prefers, if it runs a node there and not where the model is."""
    preferred = target.preferred_opset
    if preferred is None or not target.says_operators:
        return None
    there = Context.of(model, target).at({**model.graph.opset_imports, "": preferred})
    planner = LegalPlanner(model, target)
    standard = (each for each in planner.illegal if each.node.domain == "")
    return preferred if any(why_not(each.node, there).runs for each in standard) else None


@dataclass
class LegalPlanner:
    """Finds what of a model a target does not run, and plans what stands for it.

    Attributes:
        model: In topological order; it is not changed before the plan is applied.
        target: What is to run it.
        approximate: Whether what stands for a node may compute it nearly.
        scopes: The model's graphs and functions.
    """

    model: ir.Model
    target: Profile
    approximate: bool = False
    scopes: list[Scope] = field(init=False)

    def __post_init__(self) -> None:
        self.scopes = list(scopes(self.model))

    @cached_property
    def illegal(self) -> list[Illegal]:
        """Every node that the target is not known to run, and rightly.

        A profile that says nothing of nodes calls none of them illegal.
        """
        return list(self._illegal()) if self.target.says_nodes else []

    def _illegal(self) -> Iterator[Illegal]:
        for scope in self.scopes:
            context = self._context(scope)
            for node in scope.graph:
                verdict = why_not(node, context)
                if not verdict.runs and not verdict.open:
                    yield Illegal(scope, node, verdict, is_decided(verdict, self.target))

    @cached_property
    def _contexts(self) -> dict[int, Context]:
        return {}

    def _context(self, scope: Scope) -> Context:
        found = self._contexts.get(id(scope.owner))
        if found is None:
            found = Context.of(self.model, self.target).at(scope.opsets)
            self._contexts[id(scope.owner)] = found
        return found

    @property
    def left(self) -> list[Refusal]:
        """What is said of every node that the profile does not let pass."""
        return [self.refusal(each) for each in self.illegal if each.decided]

    def refusal(self, each: Illegal, remedy: str = "") -> Refusal:
        """Return what is said of a node that is left: where it is, why it is, and what helps."""
        node, verdict = each.node, each.verdict
        operator = verdict.operator if verdict.since is None else f"{node.op_type}-{verdict.since}"
        name = node.name or next((value.name for value in node.outputs if value.name), "")
        return Refusal(f"{name} ({operator})" if name else operator, verdict.reason, remedy)

    def plan(self) -> ConversionPlan:
        """Plan what stands for every illegal node.

        Raises:
            Refused: For some nothing does; lists all of them.
        """
        replacements: list[Replacement] = []
        refusals: list[Refusal] = []
        for each in self.illegal:
            try:
                built = self._built(each)
            except CannotConvert as error:
                if not each.decided:
                    continue
                helps = deciding(each.node)
                told = self.refusal(each, f"{helps} decides it" if helps else error.remedy)
                refusals.append(Refusal(told.node, error.reason, told.remedy))
            else:
                replacements.append(Replacement(each.scope, each.node, built))
        if refusals:
            raise Refused(f"legalize for {self.target.name}", refusals)
        return ConversionPlan(replacements, Widening(), self._shapes.refuted, self._own)

    def _built(self, each: Illegal) -> Built:
        """Build what stands for a node.

        Raises:
            CannotConvert: Nothing does.
        """
        if self.reads_left_out(each.node):
            raise CannotConvert("a call of the function leaves an input of it out")
        nearly = self.approximate and each.node not in self._counting
        return self._remedies(each.scope).stand_in(self._view.node(each.node), nearly=nearly)

    def reads_left_out(self, node: ir.Node) -> bool:
        """Whether a node reads an input of its function that some call leaves out."""
        return any(value in self._left_out for value in node.inputs)

    @cached_property
    def _counting(self) -> Collection[ir.Node]:
        """Nodes that compute integers in float64, which float32 does not hold."""
        return integer_arithmetic(self.model, self._typing, {ir.DataType.DOUBLE})

    @cached_property
    def _left_out(self) -> set[ir.Value]:
        return left_out_at_calls(self.model)

    @cached_property
    def _own(self) -> Collection[int]:
        return {id(scope.graph) for scope in self.scopes}

    @cached_property
    def _typing(self) -> Typing:
        return solve(self.model)

    @cached_property
    def _shapes(self) -> ShapeOverlay:
        return ShapeOverlay.of(self.model, self.scopes, self._typing)

    @cached_property
    def _view(self) -> ModelView:
        return ModelView([self._shapes.overlay], lambda: self._typing)

    @cached_property
    def _made(self) -> dict[int, Remedies]:
        return {}

    def _remedies(self, scope: Scope) -> Remedies:
        found = self._made.get(id(scope.graph))
        if found is None:
            around = MatchContext(
                scope.opsets,
                self._constants,
                (),
                scope.in_function,
                self._left_out,
                last_axes(self.model),
            )
            found = Remedies(
                self._names, scope, self._own, self.model.graph, self._context(scope), around
            )
            self._made[id(scope.graph)] = found
        return found

    @cached_property
    def _names(self) -> Names:
        return Names.of(self.model)

    @cached_property
    def _constants(self) -> Constants:
        return Constants()
