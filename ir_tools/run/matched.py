"""Which values of one model are those of another."""

from __future__ import annotations

import onnx_ir as ir

from vlmpass.ir_tools.graph.constants import constant_of
from vlmpass.ir_tools.inspecting.difference import origins

__all__ = ["matched_values", "varying_values"]

_FX_NODE = "pkg.torch.onnx.fx_node"


def matched_values(a: ir.Model, b: ir.Model) -> dict[str, str]:
    """Return what values of one model are called in another one, by their names in the latter.

    Values of one name are the same; then those that come to be alike, whatever they are called;
    then those that the exporter says are of one node of its program. Constants do not count.
    """
    old, new = varying_values(a), varying_values(b)
    pairs = {name: name for name in new if name in old}
    taken = {*pairs}
    for of in (origins, _provenance):
        ours, theirs = of(a), of(b)
        known: dict[str, str] = {}
        for name, value in old.items():
            key = ours.get(value)
            if key is not None and name not in taken:
                known.setdefault(key, name)
        for name, value in new.items():
            key = None if name in pairs else theirs.get(value)
            if key is not None and key in known:
                pairs[name] = known.pop(key)
                taken.add(pairs[name])
    return {name: pairs[name] for name in new if name in pairs}


def varying_values(model: ir.Model) -> dict[str, ir.Value]:
    """Return what the nodes of the main graph make, by name; constants do not count."""
    return {
        value.name: value
        for node in model.graph
        for value in node.outputs
        if value.name and constant_of(value) is None
    }


def _provenance(model: ir.Model) -> dict[ir.Value, str]:
    """Return the exporter's text of the node that each value is the last one of."""
    last: dict[str, ir.Value] = {}
    for node in model.graph:
        text = node.metadata_props.get(_FX_NODE)
        if text and len(node.outputs) == 1:
            last[text] = node.outputs[0]
    return {value: text for text, value in last.items()}
