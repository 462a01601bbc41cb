"""Where the nodes of a model may lie: in a branch, in a Loop, in functions of several kinds."""

from __future__ import annotations

from collections.abc import Sequence

import onnx
from onnx import AttributeProto, TensorProto, helper

__all__ = ["IN_FUNCTIONS", "PLACES", "placed"]

PLACES = ("main", "branch", "function", "loop", "nested", "references")
IN_FUNCTIONS = frozenset({"function", "nested", "references"})
"""The places without initializers: a function, one that another calls, one with attributes."""

_REFERRED = (
    AttributeProto.INT, AttributeProto.FLOAT, AttributeProto.STRING, AttributeProto.INTS,
    AttributeProto.FLOATS,
)  # fmt: skip


def placed(model: onnx.ModelProto, place: str, absent: Sequence[str] = ()) -> onnx.ModelProto:
    """Put the nodes of a model's graph somewhere else.

    Args:
        model: It is changed in place.
        place: Of `PLACES`.
        absent: Inputs of the function that the call leaves out.
    """
    if place in IN_FUNCTIONS and not model.functions:
        _into_function(model, place, absent)
    if place == "branch":
        _into_branches(model.graph)
    if place == "loop":
        _into_loop(model.graph)
    return model


def _into_function(model: onnx.ModelProto, place: str, absent: Sequence[str]) -> None:
    graph, names = model.graph, [each.name for each in model.graph.output]
    inputs = [each.name for each in graph.input]
    inputs += [each.name for each in graph.initializer if each.name not in inputs]
    known = set(inputs)
    inputs = sorted({*inputs, *absent}) if absent else inputs
    given = ["" if each in absent else each for each in inputs]
    calls = [helper.make_node("F", given, names, domain="local")]
    if known & set(absent):  # and a call that gives what it can
        given = [each if each in known else "" for each in inputs]
        others = [f"{each}.given" for each in names]
        calls.append(helper.make_node("F", given, others, domain="local"))
        graph.output.extend(onnx.ValueInfoProto(name=each) for each in others)
    function = helper.make_function(
        "local", "F", inputs, names, graph.node, list(model.opset_import)
    )
    model.functions.append(function)
    model.opset_import.append(helper.make_opsetid("local", 1))
    model.ir_version = max(model.ir_version, 8)
    if place == "references":
        _refer(model.functions[0], calls)
    if place == "nested":
        inner = helper.make_node("F", inputs, names, domain="local")
        own = list(model.opset_import)
        model.functions.append(helper.make_function("local", "G", inputs, names, [inner], own))
        for call in calls:
            call.op_type = "G"
    _replace_nodes(graph, *calls)


def _refer(function: onnx.FunctionProto, calls: Sequence[onnx.NodeProto]) -> None:
    """Let calls give the attributes of a function's nodes."""
    for index, node in enumerate(function.node):
        for each in node.attribute:
            if each.type not in _REFERRED:
                continue
            given = AttributeProto()
            given.CopyFrom(each)
            given.name = f"{each.name}{index}"
            name, kind = each.name, each.type
            each.Clear()
            each.name, each.type, each.ref_attr_name = name, kind, given.name
            function.attribute.append(given.name)
            for call in calls:
                call.attribute.append(given)


def _into_branches(graph: onnx.GraphProto) -> None:
    names = [each.name for each in graph.output]
    branches = {
        f"{each}_branch": helper.make_graph(*_renamed(graph, each)) for each in ("then", "else")
    }
    _replace_nodes(graph, helper.make_node("If", ["cond"], names, **branches))
    graph.input.append(helper.make_tensor_value_info("cond", TensorProto.BOOL, []))


def _into_loop(graph: onnx.GraphProto) -> None:
    """Let a Loop of one turn hold the nodes, which read what is outside of it."""
    names = [each.name for each in graph.output]
    nodes, name, _, outputs = _renamed(graph, "turn")
    nodes.append(helper.make_node("Identity", ["going"], ["goes"]))
    given = [
        helper.make_tensor_value_info("turn", TensorProto.INT64, []),
        helper.make_tensor_value_info("going", TensorProto.BOOL, []),
    ]
    goes = helper.make_tensor_value_info("goes", TensorProto.BOOL, [])
    body = helper.make_graph(nodes, name, given, [goes, *outputs])
    graph.initializer.append(helper.make_tensor("turns", TensorProto.INT64, [], [1]))
    _replace_nodes(graph, helper.make_node("Loop", ["turns", ""], names, body=body))


def _renamed(
    graph: onnx.GraphProto, name: str
) -> tuple[list[onnx.NodeProto], str, list[onnx.ValueInfoProto], list[onnx.ValueInfoProto]]:
    """Return nodes, a name, inputs and outputs of a subgraph with all of a graph's nodes."""
    renamed = {out: f"{out}.{name}" for node in graph.node for out in node.output if out}
    inner = []
    for node in graph.node:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.input[:] = [renamed.get(each, each) for each in node.input]
        copy.output[:] = [renamed.get(each, each) for each in node.output]
        inner.append(copy)
    outputs = [onnx.ValueInfoProto(name=renamed.get(e.name, e.name)) for e in graph.output]
    return inner, name, [], outputs


def _replace_nodes(graph: onnx.GraphProto, *nodes: onnx.NodeProto) -> None:
    del graph.node[:]
    del graph.value_info[:]
    graph.node.extend(nodes)
