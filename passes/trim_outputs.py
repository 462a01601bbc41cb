"""The pass trim-outputs: outputs that nobody uses are not asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from vlmpass.ir_tools.graph.edit import is_used, remove_dead, remove_unused_constant, replace_value
from vlmpass.ir_tools.graph.limit import may_apply
from vlmpass.ir_tools.graph.walk import scopes
from vlmpass.ir_tools.operators.schema import schema, since
from vlmpass.ir_tools.system.collector import without_collector
from vlmpass.passes.pipeline.base import Pass

__all__ = ["TrimOutputs"]


@dataclass(frozen=True)
class TrimOutputs(Pass):
    """Drop unused outputs: trailing optional ones of any operator, any of If and Loop.

    What only computed them inside a branch or body goes with them, and so does a value that a Loop
    carries around and never looks at. A node all of whose outputs are unused is left as it is.
    """

    name = "trim-outputs"
    nothing: ClassVar[str] = "every output is used"
    keeps_values: ClassVar[bool] = True

    @without_collector
    def run(self, model: ir.Model) -> bool:
        """Trim every node of the model, outer ones first."""
        changed = False
        for scope in scopes(model):
            opset = scope.opsets.get("", 1)
            for node in list(scope.graph):
                if node.domain not in ("", "ai.onnx") or not any(map(is_used, node.outputs)):
                    continue
                if node.op_type == "If":
                    changed |= _trim_if(node)
                elif node.op_type == "Loop":
                    changed |= _trim_loop(node)
                else:
                    changed |= _trim_trailing(node, opset)
        return changed


def _may(node: ir.Node) -> bool:
    return may_apply("trim-outputs", node.name or node.op_type)


def _trim_trailing(node: ir.Node, opset: int) -> bool:
    if len(node.outputs) < 2 or is_used(node.outputs[-1]):
        return False
    version = since(node.op_type, opset)
    if version is None or node.op_type == "BatchNormalization":
        return False  # it has as many as say, or suit, whether it is training
    formals = schema(node.op_type, version).outputs
    keep = len(node.outputs)
    while keep > 1 and not is_used(node.outputs[keep - 1]):
        if keep > len(formals) or not formals[keep - 1].optional or formals[keep - 1].variadic:
            break
        keep -= 1
    if keep == len(node.outputs) or not _may(node):
        return False
    node.resize_outputs(keep)
    return True


def _trim_if(node: ir.Node) -> bool:
    changed = False
    for index in reversed(range(len(node.outputs))):
        if is_used(node.outputs[index]) or not _may(node):
            continue
        for name in ("then_branch", "else_branch"):
            _drop_result(node.attributes[name].as_graph(), index)
        _drop_output(node, index)
        changed = True
    return changed


def _trim_loop(node: ir.Node) -> bool:
    body = node.attributes["body"].as_graph()
    carried = len(body.inputs) - 2
    changed = False
    for index in reversed(range(len(node.outputs))):
        if is_used(node.outputs[index]):
            continue
        if index < carried and not _is_idle(body, index):
            continue
        if not _may(node):
            continue
        _drop_result(body, index + 1)
        if index < carried:
            _drop_carried(node, body, index)
        _drop_output(node, index)
        changed = True
    return changed


def _is_idle(body: ir.Graph, index: int) -> bool:
    """Whether a body does not use a carried value, unless to hand it on."""
    value = body.inputs[index + 2]
    result = body.outputs[index + 1]
    copy = result.producer()
    handed_on = copy is not None and copy.op_type == "Identity" and copy.inputs[0] is value
    users = {use.node for use in value.uses()}
    return not users - ({copy} if handed_on and not result.uses() else set()) and (
        not value.is_graph_output() or result is value
    )


def _drop_carried(node: ir.Node, body: ir.Graph, index: int) -> None:
    position = index + 2
    initial = node.inputs[position]
    for each in range(position, len(node.inputs) - 1):
        node.replace_input_with(each, node.inputs[each + 1])
    node.resize_inputs(len(node.inputs) - 1)
    body.inputs.pop(position)
    if initial is not None:
        remove_unused_constant(initial)


def _drop_result(graph: ir.Graph, index: int) -> None:
    """Take away an output of a subgraph and what computed only that."""
    value = graph.outputs.pop(index)
    producer = value.producer()
    if producer is not None:
        remove_dead([producer])
    elif value.is_initializer():
        remove_unused_constant(value)


def _drop_output(node: ir.Node, index: int) -> None:
    """Take away an output of a node, the later ones moving up with their names and users."""
    for place in range(index, len(node.outputs) - 1):
        free, after = node.outputs[place], node.outputs[place + 1]
        free.type, free.shape, free.name = after.type, after.shape, None
        free.metadata_props.clear()
        replace_value(after, free, fresh=True)
    node.resize_outputs(len(node.outputs) - 1)
