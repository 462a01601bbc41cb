"""Plans a conversion: walks over the model, which stays as it is, and lists all in the way."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from functools import cached_property

import onnx_ir as ir

from vlmpass.ir_tools.errors import ModelError, Refusal, Refused
from vlmpass.ir_tools.graph.names import Names
from vlmpass.ir_tools.graph.walk import Scope, left_out_at_calls, scopes
from vlmpass.ir_tools.operators.schema import default_opset, history, may_lack, since
from vlmpass.ir_tools.system.opsets import FIRST_OPSET, OLDEST_OPSET, newest_opset
from vlmpass.ir_tools.types import Typing, solve
from vlmpass.rewriter_rules.opset.conversion import Conversion, ill_formed
from vlmpass.rewriter_rules.opset.element_types.widen import Interface, Widening, widen
from vlmpass.rewriter_rules.opset.plan import ConversionPlan, Replacement
from vlmpass.rewriter_rules.opset.shape_overlay import ShapeOverlay
from vlmpass.rewriter_rules.opset.table import CannotConvert
from vlmpass.rewriter_rules.opset.view import ModelView

__all__ = ["Planner", "label"]


class Planner:
    """Plans conversions of a model, which it never changes.

    Args:
        model: In topological order.
        interface: Whether its inputs and outputs keep types that an opset does not have, or get
            wider ones.
        passed_over: Nodes that stay as they are.
    """

    def __init__(
        self,
        model: ir.Model,
        interface: Interface = "keep",
        passed_over: Collection[ir.Node] = (),
    ) -> None:
        self._model = model
        self._interface: Interface = interface
        self._passed_over = passed_over
        self._scopes = list(scopes(model))
        self._own = {id(scope.graph) for scope in self._scopes}
        self._left_out = left_out_at_calls(model)
        self._names = Names.of(model)

    @cached_property
    def _typing(self) -> Typing:
        return solve(self._model)

    @cached_property
    def _shapes(self) -> ShapeOverlay:
        return ShapeOverlay.of(self._model, self._scopes, self._typing)

    def nearest(self, wanted: int) -> int:
        """Return an opset, or where the model cannot go that low, the lowest it can go to."""
        fitting = (each for each in range(wanted, self._highest()) if self._try(each) is not None)
        return next(fitting, max(wanted, self._highest()))

    def lowest(self) -> int:
        """Return the lowest opset at which every node stands as it is."""
        found = self._highest()
        while found > OLDEST_OPSET:
            plan = self._try(found - 1)
            if plan is None or plan:
                break
            found -= 1
        return found

    def _highest(self) -> int:
        """Return the highest opset that anything imports."""
        opsets = [default_opset(scope.opsets) for scope in self._scopes]
        return max((opset for opset in opsets if opset is not None), default=newest_opset())

    def _try(self, target: int) -> ConversionPlan | None:
        try:
            return self.plan(target)
        except Refused:
            return None

    def plan(self, target: int) -> ConversionPlan:
        """Plan what leads to an opset.

        Raises:
            Refused: Some nodes cannot be converted; lists all of them.
            ModelError: The model imports an opset that is not known.
        """
        widening = widen(self._model, self._scopes, lambda: self._typing, target, self._interface)
        conversions = self._conversions(target, widening)
        asks = any(self._asks(scope, conversion) for scope, conversion in conversions)
        replacements, refusals = self._walk(conversions, widening, proven=asks)
        if refusals and not asks:  # what is not declared may follow
            asks, conversions = True, self._conversions(target, widening)
            replacements, refusals = self._walk(conversions, widening, proven=True)
        if refusals:
            raise Refused(f"convert-opset to {target}", refusals)
        return ConversionPlan(
            replacements, widening, self._shapes.refuted if asks else {}, self._own
        )

    def _conversions(self, target: int, widening: Widening) -> list[tuple[Scope, Conversion]]:
        """Return how the nodes of each graph are led, those left out that are at the opset."""
        names = self._names.copy()
        found: list[tuple[Scope, Conversion]] = []
        made: dict[int, Conversion] = {}
        for scope in self._scopes:
            source = _source(scope)
            if source is None or source == target:
                continue
            if id(scope.owner) not in made:
                made[id(scope.owner)] = Conversion(
                    names, scope, source, target, self._own, self._model.graph, widening
                )
            found.append((scope, made[id(scope.owner)]))
        return found

    def _asks(self, scope: Scope, conversion: Conversion) -> bool:
        """Whether a node is to be led that takes shapes and types which the model may lack."""
        operators = {
            node.op_type
            for node in scope.graph
            if self._is_standard(node) and not ill_formed(node, conversion.source)
        }
        return any(
            conversion.touches(operator) and conversion.asks(operator) for operator in operators
        )

    def _is_standard(self, node: ir.Node) -> bool:
        return (
            node.domain == ""
            and bool(history(node.op_type))
            and node.op_identifier() not in self._model.functions
        )

    def _walk(
        self, conversions: list[tuple[Scope, Conversion]], widening: Widening, *, proven: bool
    ) -> tuple[list[Replacement], list[Refusal]]:
        overlays = [widening.overlay, self._shapes.overlay] if proven else [widening.overlay]
        view = ModelView(overlays, lambda: self._typing)
        replacements: list[Replacement] = []
        refusals: list[Refusal] = []
        for scope, conversion in conversions:
            for node in self._touched(scope, conversion, widening):
                try:
                    found = self._replacement(scope, conversion, view, node)
                except CannotConvert as error:
                    place = label(node, conversion.source)
                    refusals.append(Refusal(place, error.reason, error.remedy))
                else:
                    replacements += [] if found is None else [found]
        return replacements, refusals

    def _touched(
        self, scope: Scope, conversion: Conversion, widening: Widening
    ) -> Iterator[ir.Node]:
        """Yield the nodes that need a closer look."""
        for node in scope.graph:
            if not self._is_standard(node) or node in self._passed_over:
                continue
            astray = ill_formed(node, conversion.source) or self._missing(node, conversion)
            if astray or conversion.touches(node.op_type) or node in widening.nodes:
                yield node

    def _replacement(
        self, scope: Scope, conversion: Conversion, view: ModelView, node: ir.Node
    ) -> Replacement | None:
        problem = ill_formed(node, conversion.source)
        if problem is not None:
            raise CannotConvert(f"it is ill-formed: {problem}")
        self._refuse_missing(self._missing(node, conversion))
        built = conversion.build(view.node(node))
        if built is None:
            return None
        self._refuse_missing(next((v for v in node.inputs if v in self._left_out), None))
        return Replacement(scope, node, built)

    def _missing(self, node: ir.Node, conversion: Conversion) -> ir.Value | None:
        """Return an input that some call of the function leaves out, and the target needs."""
        before, after = ({"": opset} for opset in (conversion.source, conversion.target))
        stays = since(node.op_type, conversion.target) is not None
        for index, value in enumerate(node.inputs if self._left_out else ()):
            missing = value in self._left_out and may_lack(node, index, before)
            if missing and not (stays and may_lack(node, index, after)):
                return value
        return None

    def _refuse_missing(self, value: ir.Value | None) -> None:
        if value is not None:
            reason = f"its input '{value.name}' is left out by a call of the function"
            raise CannotConvert(reason, "run inline-functions first")


def label(node: ir.Node, opset: int) -> str:
    """Return how a refusal names a node that is written for an opset."""
    operator = f"{node.op_type}-{since(node.op_type, opset) or 'unknown'}"
    return f"{node.name} ({operator})" if node.name else operator


def _source(scope: Scope) -> int | None:
    source = default_opset(scope.opsets)
    if source is not None and not FIRST_OPSET <= source <= newest_opset():
        raise ModelError(
            f"the model imports opset {source}, and {FIRST_OPSET} to {newest_opset()} are known",
            remedy="install a newer onnx" if source > newest_opset() else "",
        )
    return source
