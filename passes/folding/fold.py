"""The pass fold: what does not depend on any input is computed now."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from vlmpass.ir_tools.graph.edit import add_constant, replace_value
from vlmpass.ir_tools.graph.limit import may_apply
from vlmpass.ir_tools.graph.walk import Scope, scopes
from vlmpass.ir_tools.shapes import kept_facts, node_tensor, visit_scope
from vlmpass.ir_tools.system.collector import without_collector
from vlmpass.passes.folding.constants import Constants
from vlmpass.passes.folding.folding import choose, replace
from vlmpass.passes.pipeline.base import OptionError, Pass

__all__ = ["Fold"]


@dataclass(frozen=True)
class Fold(Pass):
    """Compute what depends on no input: constants, known parts of shapes, Constant nodes.

    Integers come out exactly and floats within 1 ulp of ONNX Runtime; operators on which it is
    further from the exact result (Sin, Log, MatMul …), random ones and dequantisation stay.
    Large weights are moved or cast lazily, and only where no second copy of them arises.
    """

    name: ClassVar[str] = "fold"
    nothing: ClassVar[str] = "nothing to fold"
    keeps_values: ClassVar[bool] = True
    max_growth: float = 1.0
    """Bytes that a constant above 1 KiB may have for each byte of the constants it replaces."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_growth < 0:
            raise OptionError("max-growth", f"{self.max_growth} is negative")

    @without_collector
    def run(self, model: ir.Model) -> bool:
        """Fold the main graph, its subgraphs and the functions."""
        changed = _lift_constants(model)
        constants = Constants(kept_facts(model), model.ir_version)
        owners: list[ir.Graph | ir.Function] = [model.graph, *model.functions.values()]
        for owner in owners:
            visit_scope(constants.facts, Scope(owner, owner, 0), constants.visit)
        return replace(choose(constants, self.max_growth), model.ir_version) or changed


def _lift_constants(model: ir.Model) -> bool:
    """Turn the Constant nodes of graphs into initializers of the same name."""
    changed = False
    for scope in scopes(model):
        if scope.in_function or model.ir_version < 4:
            continue
        lifted = []
        for node in scope.graph:
            if node.op_type != "Constant" or node.domain not in ("", "ai.onnx"):
                continue
            value, tensor = node.outputs[0], node_tensor(node)
            if tensor is None or value.is_graph_output() or len(node.outputs) > 1:
                continue  # a file may give more outputs, which the check refuses
            if not value.name or not may_apply("fold", node.name or value.name):
                continue
            replace_value(value, add_constant(tensor, node, value.name, as_node=False), fresh=True)
            lifted.append(node)
        scope.graph.remove(lifted)
        changed |= bool(lifted)
    return changed
