"""The pass shape-arithmetic: shapes are computed once, and only where they are not known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from vlmpass.ir_tools.graph.edit import add_constant, may_add_integers, remove_dead, replace_value
from vlmpass.ir_tools.graph.limit import may_apply
from vlmpass.ir_tools.graph.names import Names
from vlmpass.ir_tools.graph.removals import Removals
from vlmpass.ir_tools.graph.walk import Scope, scopes
from vlmpass.ir_tools.shapes import Dim, Facts, kept_facts, visit_scope
from vlmpass.ir_tools.shapes.lower import Lowering
from vlmpass.ir_tools.system.collector import without_collector
from vlmpass.passes.pipeline.base import Pass
from vlmpass.passes.shape_arithmetic.scalars import Scalars
from vlmpass.passes.shape_arithmetic.synthesis import (
    Part,
    cost_of,
    plan,
    private_nodes,
    still_needed,
    vectors_among,
    write,
)
from vlmpass.passes.shape_arithmetic.targets import constant_target, is_no_op
from vlmpass.passes.shape_arithmetic.transposes import as_one_transpose

__all__ = ["ShapeArithmetic"]

_TARGETS = {"Reshape": 1, "Expand": 1}
_Key = tuple[ir.DataType | None, tuple[Dim, ...] | None, tuple[Dim, ...]]


@dataclass(frozen=True)
class ShapeArithmetic(Pass):
    """Evaluate shapes in part: constant Reshape and Expand targets, every other size once.

    Two sizes are the same only where that is proven from the graph's inputs, whatever names and
    shapes the model declares; axes of size 0 and `allowzero` keep their meaning.
    """

    name: ClassVar[str] = "shape-arithmetic"
    keeps_values: ClassVar[bool] = True

    @without_collector
    def run(self, model: ir.Model) -> bool:
        """Simplify the main graph, its subgraphs and the functions."""
        work = _Work(model, kept_facts(model))
        while work.once():
            pass
        return work.changed


@dataclass
class _Work:
    """One run over a model.

    Attributes:
        tables: Values by their elements, for every graph around the node being visited.
        targets: Constants made so far, likewise.
        replaced: Nodes that lost a user.
    """

    model: ir.Model
    facts: Facts
    tables: list[dict[_Key, ir.Value]] = field(default_factory=list)
    targets: list[dict[tuple[int, ...], ir.Value]] = field(default_factory=list)
    replaced: list[ir.Node] = field(default_factory=list)
    changed: bool = False
    _names: Names | None = None

    @property
    def names(self) -> Names:
        """The model's names, collected when they are needed first."""
        self._names = self._names or Names.of(self.model)
        return self._names

    def once(self) -> bool:
        """Go over the model; True if it was given new nodes, which may share more."""
        owners: list[ir.Graph | ir.Function] = [self.model.graph, *self.model.functions.values()]
        for owner in owners:
            visit_scope(self.facts, Scope(owner, owner, 0), self.visit, self.enter)
        remove_dead(self.replaced)
        self.replaced.clear()
        scalars = Scalars(self.facts, lambda: self.names, self.model.ir_version, self._may)
        more = False
        for scope in scopes(self.model):
            more |= self.rewrite_targets(scope)
            more |= scalars.rewrite(scope)
        return more

    def enter(self, scope: Scope) -> None:
        del self.tables[scope.depth :], self.targets[scope.depth :]
        self.tables.append({})
        self.targets.append({})

    def visit(self, node: ir.Node, scope: Scope) -> None:
        if node.domain not in ("", "ai.onnx") or not node.outputs:
            return
        if is_no_op(node, self.facts) and self._skip(node):
            return
        moved = as_one_transpose(node, self.facts)
        if moved is not None and self._transpose(node, *moved):
            return
        found = constant_target(node, self.facts)
        if found is not None:
            self._set_constant(node, scope, *found)
        for value in node.outputs:
            self._share(node, value, scope)

    def _skip(self, node: ir.Node) -> bool:
        """Let the input of a node stand for its output."""
        source, value = node.inputs[0], node.outputs[0]
        assert source is not None
        if len(node.outputs) > 1 or value.is_graph_output() or not self._may(node):
            return False
        value.replace_all_uses_with(source)
        self.replaced.append(node)
        return True

    def _transpose(self, node: ir.Node, source: ir.Value, perm: Sequence[int]) -> bool:
        """Put one Transpose in the place of a Reshape and what lies before it."""
        if node.graph is None or not self._may(node):
            return False
        new = ir.Node("", "Transpose", [source], [ir.AttrInt64s("perm", perm)], num_outputs=1)
        new.name = self.names.node(f"{node.name or node.op_type}/Transpose")
        new.metadata_props.update(node.metadata_props)
        (old,), (value,) = node.outputs, new.outputs
        node.graph.insert_before(node, new)
        replace_value(old, value, fresh=True)
        self.replaced.append(node)
        return True

    def _may(self, node: ir.Node) -> bool:
        allowed = may_apply("shape-arithmetic", node.name or node.op_type)
        self.changed |= allowed
        return allowed

    def _set_constant(
        self, node: ir.Node, scope: Scope, index: int, numbers: Sequence[int]
    ) -> None:
        """Give a node a constant input in the place of a computed one."""
        old = node.inputs[index]
        assert old is not None
        if not may_add_integers(scope, self.model.ir_version) or not self._may(node):
            return
        key = tuple(numbers)
        visible = self.targets[: scope.depth + 1]
        found = next((table[key] for table in visible if key in table), None)
        if found is None:
            as_node = scope.in_function or self.model.ir_version < 4
            name = self.names.value(f"{old.name}/known")
            tensor = ir.Tensor(np.array(key, np.int64))
            found = add_constant(tensor, node, name, as_node=as_node)
            self.targets[scope.depth][key] = found
        node.replace_input_with(index, found)
        producer = old.producer()
        if producer is not None:
            self.replaced.append(producer)

    def _share(self, node: ir.Node, value: ir.Value, scope: Scope) -> None:
        """Replace a value by an earlier one with the same elements, or note it."""
        known = self.facts[value]
        if known.elements is None or known.numbers is not None:
            return
        key = (self.facts.dtype(value), known.shape, known.elements)
        for table in self.tables[: scope.depth + 1]:
            found = table.get(key)
            if found is not None:
                if not value.is_graph_output() and value.uses() and self._may(node):
                    value.replace_all_uses_with(found)
                    self.replaced.append(node)
                return
        self.tables[scope.depth][key] = value

    def rewrite_targets(self, scope: Scope) -> bool:
        """Compute what is left of the shape targets of a graph with fewer nodes, if that can be."""
        if not may_add_integers(scope, self.model.ir_version):
            return False
        as_nodes = scope.in_function or self.model.ir_version < 4
        opset = scope.opsets.get("", 1)
        done: set[ir.Value] = set()
        before: set[ir.Node] = set()
        lowering: Lowering | None = None
        removals = Removals()
        for node in scope.graph:
            before.add(node)
            index = _TARGETS.get(node.op_type)
            value = node.inputs[index] if index is not None and index < len(node.inputs) else None
            if value is None or value in done or node.domain not in ("", "ai.onnx"):
                continue
            done.add(value)
            users = {use.node for use in value.uses()} - {node}
            if not before.isdisjoint(users) or any(user.graph is not node.graph for user in users):
                continue
            parts = self._better(node, value, opset)
            if parts is None or not self._may(node):
                continue
            lowering = lowering or Lowering(
                self.facts.algebra, self.names, scope.opsets, as_nodes=as_nodes
            )
            new = write(parts, lowering, node)
            producer = value.producer()
            assert producer is not None
            value.replace_all_uses_with(new)
            remove_dead([producer], removals)
        removals.finish()
        return lowering is not None

    def _better(self, node: ir.Node, value: ir.Value, opset: int) -> list[Part] | None:
        """Return a cheaper way to compute a shape target of a node, None if there is none."""
        target, producer = self.facts[value].elements, value.producer()
        if target is None or producer is None or self.facts[value].numbers is not None:
            return None
        if value.is_graph_output() or producer.graph is not node.graph:
            return None
        if self.facts.dtype(value) != ir.DataType.INT64:
            return None
        sources = [each for each in node.inputs if each is not None and each is not value]
        private = private_nodes(value)
        best, least = None, len(private)
        for vectors in ((), vectors_among(private, self.facts)):
            parts = plan(target, sources, self.facts, vectors)
            if parts is None:
                continue
            cost = cost_of(parts, opset) + still_needed(parts, private)
            if cost < least:
                best, least = parts, cost
        return best
