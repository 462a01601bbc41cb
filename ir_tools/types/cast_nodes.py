"""Cast nodes: put in where a value is wanted in another type, and taken out where they do nothing.

Every value gets at most one Cast to each type, right where it comes from, whatever the number of
its users.
"""

from __future__ import annotations

import re

import onnx_ir as ir

from vlmpass.ir_tools.errors import Refusal
from vlmpass.ir_tools.graph.edit import OutputPlaces
from vlmpass.ir_tools.graph.names import Names
from vlmpass.ir_tools.graph.removals import Removals
from vlmpass.ir_tools.graph.walk import scopes
from vlmpass.ir_tools.operators.dtypes import holds_all
from vlmpass.ir_tools.operators.type_texts import dtype_of, parse
from vlmpass.ir_tools.types.typing import Typing, require_well_typed

__all__ = [
    "REASON",
    "Casts",
    "is_made",
    "leave_well_typed",
    "left_out_refusal",
    "mark",
    "remove_needless",
]

REASON = "vlmpass.reason"
"""The metadata key under which a new node says why it is there."""

_MADE = re.compile(r"/(float|float16|bfloat16)(_\d+)?/Cast(_\d+)?")


def is_made(node: ir.Node) -> bool:
    """Whether a Cast was put in by a conversion; below IR version 10 only its name says so."""
    return REASON in node.metadata_props or _MADE.search(node.name or "") is not None


def mark(node: ir.Node, names: Names, reason: str) -> None:
    """Make a Cast of the source one of ours, where an island that we leave ends there.

    Args:
        node: A Cast.
        names: Where its new name comes from.
        reason: What its metadata says about it.
    """
    node.metadata_props[REASON] = reason
    dtype = ir.DataType(node.attributes["to"].as_int())
    value = node.inputs[0]
    assert value is not None
    node.name = names.node(f"{value.name}/{dtype.name.lower()}/Cast")


def left_out_refusal(value: ir.Value) -> Refusal:
    """Return why an input of a function that some call leaves out cannot be cast."""
    return Refusal(
        f"input '{value.name}' of a function",
        "a call leaves it out, so that no Cast can take it",
        "put inline-functions before",
    )


class Casts:
    """Makes Casts and remembers them.

    Args:
        names: Where fresh names come from.
    """

    def __init__(self, names: Names) -> None:
        self._names = names
        self._made: dict[tuple[ir.Value, str, ir.Graph | None], ir.Value] = {}

    def to(
        self, value: ir.Value, text: str, reason: str, *, end_of: ir.Graph | None = None
    ) -> ir.Value:
        """Return the value in another tensor type, by one Cast however often it is asked for.

        Args:
            value: Any value of a graph.
            text: A tensor type.
            reason: What the Cast's metadata says about it.
            end_of: Put the Cast last into this graph instead of right after the value's producer.
        """
        key = (value, text, end_of)
        made = self._made.get(key)
        if made is None:
            made = self._made[key] = self._reuse(value, text, end_of) or self._make(
                value, text, reason, end_of
            )
        return made

    def _reuse(self, value: ir.Value, text: str, end_of: ir.Graph | None) -> ir.Value | None:
        """Return the output of a Cast that is there already, moved to where all can use it."""
        dtype = dtype_of(text)
        for user, _ in value.uses():
            if user.op_type != "Cast" or user.domain or user.graph is not value.graph:
                continue
            to = user.attributes.get("to")
            if to is None or to.is_ref() or ir.DataType(to.as_int()) != dtype:
                continue
            output = user.outputs[0]
            if end_of is None and not output.is_graph_output() and user.graph is not None:
                _place(user, value)
                return output
        return None

    def _make(self, value: ir.Value, text: str, reason: str, end_of: ir.Graph | None) -> ir.Value:
        dtype = dtype_of(text)
        assert dtype is not None
        hint = f"{value.name}/{dtype.name.lower()}"
        node = ir.Node(
            "",
            "Cast",
            [value],
            [ir.AttrInt64("to", dtype.value)],
            num_outputs=1,
            name=self._names.node(f"{hint}/Cast"),
            metadata_props={REASON: reason},
        )
        output = node.outputs[0]
        output.name, output.type, output.shape = self._names.value(hint), parse(text), value.shape
        if end_of is not None:
            end_of.append(node)
        else:
            _place(node, value)
        return output


def _place(node: ir.Node, value: ir.Value) -> None:
    """Put a node right after the producer of a value, or first into the value's graph."""
    producer = value.producer()
    graph = producer.graph if producer is not None else value.graph
    assert graph is not None
    if producer is not None:
        graph.insert_after(producer, node)
    elif len(graph):
        graph.insert_before(graph[0], node)
    else:
        graph.append(node)


def _bypass(node: ir.Node, names: Names, removals: Removals, places: OutputPlaces) -> bool:
    """Let a node's input stand for its only output and remove the node; False if it must stay.

    A graph output keeps its name: the input's producer takes it over, or an Identity stands in
    where the input has a name to keep itself or lies in another graph.
    """
    source, output, graph = node.inputs[0], node.outputs[0], node.graph
    assert source is not None
    assert graph is not None
    if output.is_graph_output():
        foreign = source.producer() is None or source.graph is not output.graph
        if foreign or source.is_graph_output():
            node.op_type = "Identity"
            node.attributes.clear()
            node.resize_inputs(1)  # a CastLike has two
            return False
        source.name, output.name = output.name, names.value(f"{output.name}/bypassed")
        source.shape = source.shape if source.shape is not None else output.shape
        source.type = source.type if source.type is not None else output.type
    places.replace_uses(output, source)
    removals.remove(graph, [node])
    return True


def _does_nothing(node: ir.Node, typing: Typing) -> bool:
    source = node.inputs[0]
    text = typing.text_of(source) if source is not None else None
    return text is not None and text == typing.text_of(node.outputs[0])


def _exact_return(node: ir.Node, typing: Typing) -> ir.Node | None:
    """Return the Cast below if the pair goes to a wider type and back, else None."""
    source = node.inputs[0]
    inner = source.producer() if source is not None else None
    if inner is None or source is None or (inner.domain, inner.op_type) != ("", "Cast"):
        return None
    first = inner.inputs[0]
    if first is None or typing.text_of(first) != typing.text_of(node.outputs[0]):
        return None
    narrow, wide = typing.dtype(first), typing.dtype(source)
    if narrow is None or wide is None or not holds_all(wide, narrow):
        return None
    return inner


def remove_needless(model: ir.Model, typing: Typing, names: Names) -> int:
    """Remove Casts that do nothing: to the type that is there, or to a wider one and back.

    Args:
        model: A well typed model.
        typing: Its types.
        names: Its names.

    Returns:
        How many nodes were removed or became an Identity.
    """
    removed, removals, places = 0, Removals(), OutputPlaces()
    for scope in scopes(model):
        for node in list(scope.graph):
            if node.domain or node.op_type not in ("Cast", "CastLike"):
                continue
            inner = _exact_return(node, typing) if node.op_type == "Cast" else None
            if inner is not None:
                node.replace_input_with(0, inner.inputs[0])
            if inner is not None or _does_nothing(node, typing):
                _bypass(node, names, removals, places)
                removed += 1
            if inner is not None and not inner.outputs[0].uses():
                removed += _drop_unused(inner, removals)
    removals.finish()
    return removed


def leave_well_typed(model: ir.Model, request: str, names: Names) -> tuple[Typing, int]:
    """Remove needless Casts, and hold a model to what every change of types must leave.

    Args:
        model: As a pass leaves it.
        request: What was asked, for messages.
        names: The model's names.

    Returns:
        Its types, and how many Casts were removed.

    Raises:
        Refused: It is not well typed, subgraphs and functions included.
    """
    typing = require_well_typed(model, request)
    removed = remove_needless(model, typing, names)
    return (require_well_typed(model, request) if removed else typing), removed


def _drop_unused(node: ir.Node, removals: Removals) -> int:
    if node.outputs[0].is_graph_output() or node.graph is None or node in removals:
        return 0
    removals.remove(node.graph, [node])
    return 1
