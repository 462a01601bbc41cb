"""The pass unroll-loops: bodies written out as often as they run, where that is known before."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from vlmpass.ir_tools.graph.limit import may_apply
from vlmpass.ir_tools.graph.read_attributes import refers
from vlmpass.ir_tools.graph.walk import Scope, subgraphs
from vlmpass.ir_tools.shapes import Facts, facts_of, visit_scope
from vlmpass.ir_tools.system.collector import without_collector
from vlmpass.passes.control.branches import takes_scalars
from vlmpass.passes.control.iterations import Iterations, write_out
from vlmpass.passes.pipeline.base import OptionError, Pass
from vlmpass.passes.pipeline.needs import Need

__all__ = ["UnrollLoops"]


@dataclass(frozen=True)
class UnrollLoops(Pass):
    """Write the body of a Loop or Scan out as often as it runs, where that is constant.

    A Loop counts whose condition stays true, and a Scan over an axis of known size. One that runs
    never or once is the matter of `dead-branches`; one that draws from a seed stays, since each
    copy would draw the same.
    """

    name: ClassVar[str] = "unroll-loops"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.SHAPES})
    edits_shapes: ClassVar[bool] = True
    nothing: ClassVar[str] = "no Loop or Scan runs a constant number of times within bounds"

    most: int = 64
    """How often a body may run that is written out."""

    nodes: int = 10000
    """How many nodes may stand for one Loop or Scan."""

    def __post_init__(self) -> None:
        """Check that something may be written out."""
        super().__post_init__()
        for option, number in (("most", self.most), ("nodes", self.nodes)):
            if number < 1:
                raise OptionError(option, f"nothing is written out {number} times")

    @without_collector
    def run(self, model: ir.Model) -> bool:
        """Write out from the outside in, until nothing is left to write out."""
        changed = False
        while found := list(self._found(model)):
            write_out(model, found)
            changed = True
        return changed

    def _found(self, model: ir.Model) -> Iterator[Iterations]:
        """Yield what is to be written out and lies in nothing that is."""
        facts = facts_of(model)
        known: dict[ir.Node, Iterations] = {}

        def visit(node: ir.Node, scope: Scope) -> None:
            times = _times(node, facts)
            if times is not None and 1 < times <= self.most and _size(node) * times <= self.nodes:
                known[node] = Iterations(node, times, scope)

        owners: list[ir.Graph | ir.Function] = [model.graph, *model.functions.values()]
        for owner in owners:
            visit_scope(facts, Scope(owner, owner, 0), visit)
        inner = {node for each in known for graph in subgraphs(each) for node in graph.all_nodes()}
        for node, each in known.items():
            if node not in inner and may_apply(self.name, node.name or node.op_type):
                yield each


def _size(node: ir.Node) -> int:
    return sum(1 for graph in subgraphs(node) for _ in graph.all_nodes())


def _times(node: ir.Node, facts: Facts) -> int | None:
    """Return how often the body of a Loop or Scan runs; None where that is not constant."""
    if node.domain not in ("", "ai.onnx") or "body" not in node.attributes or refers(node):
        return None
    body = node.attributes["body"].as_graph()
    if any("seed" in each.attributes for each in body.all_nodes()):
        return None
    if node.op_type == "Loop":
        return _trips(node, body, facts)
    if node.op_type != "Scan" or len(node.inputs) != len(body.inputs):
        return None  # Scan-8 runs over a batch and takes lengths
    count = node.attributes["num_scan_inputs"].as_int()
    axes = node.attributes.get_ints("scan_input_axes") or (0,) * count
    shape = facts[node.inputs[-count]].shape if count else None
    size = None if shape is None else shape[axes[0]]
    return size if isinstance(size, int) else None


def _trips(node: ir.Node, body: ir.Graph, facts: Facts) -> int | None:
    most, start = ([*node.inputs, None][index] for index in range(2))
    trips = None if most is None else facts[most].numbers
    if trips is None or None in node.inputs[2:] or len(node.inputs) != len(body.inputs):
        return None
    if not takes_scalars(body):
        return None
    starts = start is None or facts[start].numbers == (1,)
    goes_on = body.outputs[0]
    while (maker := goes_on.producer()) is not None and maker.op_type == "Identity":
        assert maker.inputs[0] is not None
        goes_on = maker.inputs[0]
    stays = goes_on is body.inputs[1] or facts[goes_on].numbers == (1,)
    return trips[0] if starts and stays else None
