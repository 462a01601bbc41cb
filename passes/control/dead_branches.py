"""The pass dead-branches: control flow that is decided before the model runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from vlmpass.ir_tools.graph.edit import (
    add_constant,
    has_constants_of,
    is_used,
    may_add_integers,
    remove_unused_constant,
)
from vlmpass.ir_tools.graph.limit import may_apply
from vlmpass.ir_tools.graph.walk import Scope, all_nodes
from vlmpass.ir_tools.shapes import Facts, kept_facts, visit_scope
from vlmpass.ir_tools.system.collector import without_collector
from vlmpass.passes.control.branches import Inliner, takes_scalars
from vlmpass.passes.pipeline.base import Pass

__all__ = ["DeadBranches"]


@dataclass(frozen=True)
class DeadBranches(Pass):
    """Inline If with a decided condition and Loop that runs at most once.

    A condition counts as decided where it follows from constants or from shapes that are proven.
    """

    name = "dead-branches"
    nothing: ClassVar[str] = "no If or Loop is decided"
    keeps_values: ClassVar[bool] = True

    @without_collector
    def run(self, model: ir.Model) -> bool:
        """Decide until nothing is left to decide; a Loop that is inlined may decide more."""
        changed = False
        while any(node.op_type in _CONTROL for node in all_nodes(model)) and _run_once(model):
            changed = True
        return changed


_CONTROL = frozenset({"If", "Loop"})


def _run_once(model: ir.Model) -> bool:
    work = _Work(model, kept_facts(model))
    owners: list[ir.Graph | ir.Function] = [model.graph, *model.functions.values()]
    for owner in owners:
        visit_scope(work.facts, Scope(owner, owner, 0), work.visit)
    return work.changed


class _Work:
    """One run over a model."""

    def __init__(self, model: ir.Model, facts: Facts) -> None:
        self.model = model
        self.facts = facts
        self.changed = False
        self._inliner: Inliner | None = None

    @property
    def inliner(self) -> Inliner:
        """The inliner, made when it is needed first."""
        self._inliner = self._inliner or Inliner(self.model)
        return self._inliner

    def visit(self, node: ir.Node, scope: Scope) -> None:
        if node.domain not in ("", "ai.onnx"):
            return
        if node.op_type == "If":
            self._if(node, scope)
        elif node.op_type == "Loop":
            self._loop(node, scope)

    def _allowed(self, node: ir.Node) -> bool:
        allowed = may_apply("dead-branches", node.name or node.op_type)
        self.changed |= allowed
        return allowed

    def _if(self, node: ir.Node, scope: Scope) -> None:
        decided = self.facts[node.inputs[0]].numbers
        if decided is None or not self._allowed(node):
            return
        name = "then_branch" if decided[0] else "else_branch"
        graph = node.attributes[name].as_graph()
        self.inliner.inline(node, graph, {}, list(graph.outputs), in_function=scope.in_function)

    def _loop(self, node: ir.Node, scope: Scope) -> None:
        body = node.attributes["body"].as_graph()
        trips = _trips(node, body, self.facts)
        if trips == 0:
            self._skip(node, body, scope)
        elif trips == 1:
            self._once(node, body, scope)

    def _skip(self, node: ir.Node, body: ir.Graph, scope: Scope) -> None:
        """Let the initial values of a Loop stand for the final ones, and nothing for the rest."""
        carried = len(body.inputs) - 2
        scanned = list(zip(body.outputs[carried + 1 :], node.outputs[carried:], strict=False))
        empty = {result: self._empty(value) for value, result in scanned if is_used(result)}
        opset = scope.opsets.get("", 1)
        outputs = [each for each in empty.values() if each is not None]
        if any(not has_constants_of(each.dtype, opset) for each in outputs):
            return  # a graph output would have to be such a Constant
        if None in empty.values():
            return  # how long the other axes of an empty result are is not known
        if not self._allowed(node):
            return
        results: list[ir.Value | None] = list(node.inputs[2 : 2 + carried])
        for _, result in scanned:
            tensor = empty.get(result)
            made = None
            if tensor is not None:
                made = self._constant(tensor, node, scope, as_node=result.is_graph_output())
            results.append(made)
        self.inliner.drop(node, results)

    def _constant(
        self, tensor: ir.TensorProtocol, node: ir.Node, scope: Scope, *, as_node: bool = False
    ) -> ir.Value:
        as_node = as_node or scope.in_function or self.model.ir_version < 4
        name = self.inliner.name(f"{node.name or node.op_type}/constant")
        return add_constant(tensor, node, name, as_node=as_node)

    def _empty(self, value: ir.Value) -> ir.TensorProtocol | None:
        shape, dtype = self.facts[value].static, self.facts.dtype(value)
        if shape is None or dtype is None:
            return None
        return ir.tensor(np.zeros((0, *shape), dtype.numpy()), dtype=dtype)

    def _once(self, node: ir.Node, body: ir.Graph, scope: Scope) -> None:
        """Inline a body that runs once; its scanned outputs get their axis of length 1."""
        carried = len(body.inputs) - 2
        initial = [value for value in node.inputs[2 : 2 + carried] if value is not None]
        if not may_add_integers(scope, self.model.ir_version):
            return
        if len(initial) < carried or not takes_scalars(body) or not self._allowed(node):
            return
        arrays = (np.array(0, np.int64), np.array(True))
        fixed = [self._constant(ir.tensor(array), node, scope) for array in arrays]
        inputs = dict(zip(body.inputs, [*fixed, *initial], strict=True))
        results: list[ir.Value | None] = [inputs.get(value, value) for value in body.outputs[1:]]
        opset = scope.opsets.get("", 1)
        for index, value in enumerate(results[carried:], carried):
            assert value is not None
            results[index] = self._unsqueezed(value, body, opset, scope, node)
        self.inliner.inline(node, body, inputs, results, in_function=scope.in_function)
        for value in fixed:
            remove_unused_constant(value)

    def _unsqueezed(
        self, value: ir.Value, body: ir.Graph, opset: int, scope: Scope, loop: ir.Node
    ) -> ir.Value:
        """Add a first axis of length 1 to a value, at the end of a body."""
        inputs, attributes = [value], [ir.AttrInt64s("axes", [0])]
        if opset >= 13:
            inputs.append(self._constant(ir.tensor(np.array([0], np.int64)), loop, scope))
            attributes = []
        node = ir.Node("", "Unsqueeze", inputs, attributes, num_outputs=1)
        node.name = self.inliner.name(f"{loop.name or loop.op_type}/Unsqueeze")
        (output,) = node.outputs
        output.name = self.inliner.name(f"{node.name}_output")
        output.type = value.type
        output.shape = None if value.shape is None else ir.Shape([1, *value.shape])
        body.append(node)
        return output


def _trips(node: ir.Node, body: ir.Graph, facts: Facts) -> int | None:
    """Return how often a Loop runs if that is 0 or 1, None otherwise."""
    most, condition = (_number(facts, node.inputs, index) for index in range(2))
    if condition == 0 or (isinstance(most, int) and most <= 0):
        return 0
    stops = most == 1 or facts[body.outputs[0]].numbers == (0,)
    runs = condition in (1, "absent") and (most == "absent" or isinstance(most, int))
    return 1 if stops and runs else None


def _number(facts: Facts, inputs: Sequence[ir.Value | None], index: int) -> int | str | None:
    value = inputs[index] if index < len(inputs) else None
    if value is None:
        return "absent"
    numbers = facts[value].numbers
    return numbers[0] if numbers else None
