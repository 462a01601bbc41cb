"""The pass move-transposes: Transposes go to where fewer of them do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from vlmpass.ir_tools.graph.edit import remove_dead
from vlmpass.ir_tools.graph.limit import may_apply
from vlmpass.ir_tools.graph.names import Names
from vlmpass.ir_tools.graph.walk import Scope, scopes
from vlmpass.ir_tools.system.collector import without_collector
from vlmpass.passes.pipeline.base import Pass
from vlmpass.rewriter_rules.permuted import Region, inverse, perm_of, region_of, turn

__all__ = ["MoveTransposes"]


@dataclass(frozen=True)
class MoveTransposes(Pass):
    """Move Transposes through what works in any order of axes, where fewer of them are left then.

    Values are the same bits, but for sums over axes that come to lie elsewhere, which a runtime
    may add up in another order. Small constants are turned along, without a node.
    """

    name: ClassVar[str] = "move-transposes"
    nothing: ClassVar[str] = "no Transpose to save"
    keeps_values: ClassVar[bool] = True

    @without_collector
    def run(self, model: ir.Model) -> bool:
        """Look through the main graph, its subgraphs and the functions."""
        names = Names.of(model)
        found = [_settle(scope, names) for scope in scopes(model)]
        return any(found)


def _settle(scope: Scope, names: Names) -> bool:
    """Move the Transposes of one graph until no order saves any more."""
    changed = False
    waiting, count = _orders(scope), len(_transposes(scope))
    while waiting:
        order = waiting.pop(0)
        region = _region(scope, order)
        if region is None or not may_apply(MoveTransposes.name, _label(region)):
            continue
        turn(scope, region, names)
        remove_dead(_transposes(scope))
        changed, before, count = True, count, len(_transposes(scope))
        if count < before:
            waiting = _orders(scope)
    return changed


def _transposes(scope: Scope) -> list[ir.Node]:
    return [node for node in scope.graph if perm_of(node) is not None]


def _orders(scope: Scope) -> list[tuple[int, ...]]:
    """Return the orders that Transposes make or undo, each once."""
    perms = [perm for node in scope.graph if (perm := perm_of(node)) is not None]
    found = dict.fromkeys(order for perm in perms for order in (inverse(perm), perm))
    return [order for order in found if order != tuple(range(len(order)))]


def _region(scope: Scope, order: tuple[int, ...]) -> Region | None:
    graph = scope.graph.graph if isinstance(scope.graph, ir.Function) else scope.graph
    return region_of(_transposes(scope), order, graph, scope.opsets.get("", 1))


def _label(region: Region) -> str:
    return min(node.name or node.op_type for node in region.nodes | region.makers | region.takers)
