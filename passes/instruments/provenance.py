"""Every new node says which pass made it."""

from __future__ import annotations

import onnx_ir as ir

from vlmpass.ir_tools.graph.walk import all_nodes
from vlmpass.passes.instruments.instrument import Instrument, Step

__all__ = ["KEY", "Provenance"]

KEY = "vlmpass.pass"


class Provenance(Instrument):
    """Stamps the pass's text into the metadata of the nodes that were not there before it.

    A node that took its predecessor's metadata over is stamped anew. Where a pass returned another
    model altogether, the nodes whose operator and outputs are as before are not new.
    """

    def __init__(self) -> None:
        self._graph: ir.Graph | None = None
        self._before: dict[int, ir.Node] = {}

    def before(self, step: Step, model: ir.Model) -> None:
        """Note the nodes that are there; holding them keeps their ids from being used again.

        Between two passes of one pipeline nothing changes: what the last one left is known.
        """
        if step.number == 1 or model.graph is not self._graph:
            self._graph = model.graph
            self._before = {id(node): node for node in all_nodes(model)}

    def after(self, step: Step, model: ir.Model, changed: bool) -> None:
        """Stamp those that are new."""
        if not changed:
            return
        before, self._before = self._before, {id(node): node for node in all_nodes(model)}
        new = [node for key, node in self._before.items() if key not in before]
        if model.graph is not self._graph:
            same = {_signature(node) for node in before.values()}
            new = [node for node in new if _signature(node) not in same]
            self._graph = model.graph
        for node in new:
            node.metadata_props[KEY] = step.text


def _signature(node: ir.Node) -> tuple[str | None, ...]:
    return (node.domain, node.op_type, *(value.name for value in node.outputs))
