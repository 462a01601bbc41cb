"""The dry walk over a model: everything that would be edited, and all that stands in the way."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from vlmpass.ir_tools.errors import ModelError, Refusal, Refused
from vlmpass.ir_tools.graph.names import Names
from vlmpass.ir_tools.graph.tape import splice
from vlmpass.ir_tools.graph.walk import Scope, left_out_at_calls, scopes
from vlmpass.ir_tools.operators.schema import (
    FIRST_OPSET,
    OLDEST_OPSET,
    default_opset,
    history,
    may_lack,
    newest_opset,
    since,
)
from vlmpass.rewriter_rules.opset.conversion import Built, Conversion, ill_formed
from vlmpass.rewriter_rules.opset.element_types.widen import Change, Interface, Widened, widen
from vlmpass.rewriter_rules.opset.shape_overlay import Proven
from vlmpass.rewriter_rules.opset.table import CannotConvert

__all__ = ["Dry", "Edit", "drop_unused", "label"]


@dataclass
class Edit:
    """One node of the model and what will stand for it."""

    scope: Scope
    node: ir.Node
    built: Built
    conversion: Conversion
    operands: tuple[ir.Value, ...]

    def apply(self) -> None:
        """Put the new nodes in the place of the old one."""
        outputs = zip(self.node.outputs, self.built.outputs, strict=False)
        pairs = [(old, new) for old, new in outputs if new is not None]
        splice(self.built.tape, [self.node], pairs, in_function=self.scope.in_function)


class Dry:
    """Builds the edits of a whole model, its graph untouched until the caller applies them.

    Args:
        model: The model.
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
        self._refusals: list[Refusal] = []
        self._proven: Proven | None = None
        self._widened = Widened()

    @property
    def changes(self) -> list[Change]:
        """Inputs and outputs of the model that have another type since `build`."""
        return self._widened.changes

    @property
    def widened(self) -> bool:
        """Whether values have another element type since `build`."""
        return bool(self._widened)

    def _highest(self) -> int:
        """Return the highest opset that anything imports."""
        opsets = [default_opset(scope.opsets) for scope in self._scopes]
        return max((opset for opset in opsets if opset is not None), default=newest_opset())

    def nearest(self, wanted: int) -> int:
        """Return an opset, or where the model cannot go that low, the lowest it can go to."""
        for target in range(wanted, self._highest()):
            try:
                self._discard(self.build(target))
            except Refused:
                continue
            return target
        return max(wanted, self._highest())

    def lowest(self) -> int:
        """Return the lowest opset at which every node stands as it is."""
        found = self._highest()
        while found > OLDEST_OPSET and self._stands(found - 1):
            found -= 1
        return found

    def _stands(self, target: int) -> bool:
        try:
            edits = self.build(target)
        except Refused:
            return False
        stands = not edits and not self._widened
        self._discard(edits)
        return stands

    def build(self, target: int) -> list[Edit]:
        """Build every edit that leads to an opset.

        Values whose element type the opset lacks already have another one afterwards.

        Raises:
            Refused: Some nodes cannot be converted; lists all of them.
            ModelError: The model imports an opset that is not known.
        """
        edits: list[Edit] = []
        conversions: dict[int, Conversion] = {}
        self._refusals = []
        sources = [_source(scope) for scope in self._scopes]
        self._widened = widen(self._model, self._scopes, target, self._interface)
        for scope, source in zip(self._scopes, sources, strict=True):
            if source is None or source == target:
                continue
            if id(scope.owner) not in conversions:
                conversions[id(scope.owner)] = Conversion(
                    self._names,
                    scope.opsets,
                    source,
                    target,
                    self._own,
                    self._model.graph,
                    scope.in_function,
                    self._widened,
                )
            edits += self._build_scope(scope, conversions[id(scope.owner)])
        if self._refusals:
            self._discard(edits)
            raise Refused(f"convert-opset to {target}", self._refusals)
        return edits

    def _discard(self, edits: Sequence[Edit]) -> None:
        for edit in edits:
            edit.conversion.discard(edit.built)
        self._widened.take_back()

    def _build_scope(self, scope: Scope, conversion: Conversion) -> list[Edit]:
        touched: dict[str, bool] = {}
        edits: list[Edit] = []
        for node in scope.graph:
            operator = node.op_type
            if node.domain != "" or not history(operator) or self._is_function(node):
                continue
            if node in self._passed_over:
                continue
            problem = ill_formed(node, conversion.source)
            if problem is not None:
                self._refuse(node, conversion.source, f"it is ill-formed: {problem}", "")
                continue
            missing = self._missing(node, conversion)
            if missing is not None:
                self._refuse_missing(node, conversion, missing)
                continue
            if operator not in touched:
                touched[operator] = conversion.touches(operator)
            if touched[operator] or node in self._widened.nodes:
                edits += self._build_node(scope, node, conversion)
        return edits

    def _build_node(self, scope: Scope, node: ir.Node, conversion: Conversion) -> list[Edit]:
        if self._proven is None and conversion.asks(node.op_type):
            self._proven = Proven(self._model, self._scopes)
        try:
            built = conversion.build(node)
        except CannotConvert as error:
            if self._proven is None:
                self._proven = Proven(self._model, self._scopes)
                return self._build_node(scope, node, conversion)
            self._refuse(node, conversion.source, error.reason, error.remedy)
            return []
        if built is None:
            return []
        gone = next((value for value in node.inputs if value in self._left_out), None)
        if gone is not None:
            conversion.discard(built)
            self._refuse_missing(node, conversion, gone)
            return []
        operands = tuple(value for value in node.inputs if value is not None)
        return [Edit(scope, node, built, conversion, operands)]

    def _missing(self, node: ir.Node, conversion: Conversion) -> ir.Value | None:
        """Return an input that some call of the function leaves out, and the target needs."""
        before, after = ({"": opset} for opset in (conversion.source, conversion.target))
        for index, value in enumerate(node.inputs if self._left_out else ()):
            missing = value in self._left_out and may_lack(node, index, before)
            if missing and not may_lack(node, index, after):
                return value
        return None

    def _refuse_missing(self, node: ir.Node, conversion: Conversion, value: ir.Value) -> None:
        reason = f"its input '{value.name}' is left out by a call of the function"
        self._refuse(node, conversion.source, reason, "run inline-functions first")

    def _is_function(self, node: ir.Node) -> bool:
        return bool(self._model.functions) and node.op_identifier() in self._model.functions

    def forget(self, *, correct: bool) -> None:
        """Take back the types and shapes that were only needed to decide.

        Args:
            correct: Whether edits were built: declared shapes that proved wrong stay away, and
                what has another type keeps it.
        """
        if not correct:
            self._widened.take_back()
        if self._proven is not None:
            self._proven.take_back(correct=correct)
        self._proven = None
        self._widened.forget()

    def _refuse(self, node: ir.Node, opset: int, reason: str, remedy: str) -> None:
        self._refusals.append(Refusal(label(node, opset), reason, remedy))


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


def drop_unused(edits: Sequence[Edit]) -> None:
    """Remove constants that only nodes now replaced had read."""
    operands = {id(value): value for edit in edits for value in edit.operands}
    for value in operands.values():
        if value.uses() or value.is_graph_output() or value.is_graph_input():
            continue
        node = value.producer()
        if node is not None and node.graph is not None:
            if (node.domain, node.op_type) == ("", "Constant"):
                node.graph.remove(node, safe=True)
        elif value.is_initializer() and value.graph is not None and value.name:
            del value.graph.initializers[value.name]
