"""A part of a model as a model of its own, with typed borders and no more than it needs."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property

import onnx_ir as ir

from vlmpass.ir_tools.errors import Refusal, Refused
from vlmpass.ir_tools.graph.clone import excerpt
from vlmpass.ir_tools.graph.describe import name_node
from vlmpass.ir_tools.graph.walk import scopes
from vlmpass.ir_tools.parts.selection import Selection
from vlmpass.ir_tools.shapes.declared import declared_sizes, merged, refuted
from vlmpass.ir_tools.shapes.inferred import Size, inferred_shapes
from vlmpass.ir_tools.types.typing import Typing, solve

__all__ = ["Lifter"]


class Lifter:
    """Lifts parts out of a model, which stays as it is; its types and shapes are inferred once.

    Args:
        model: Its tensors and functions are shared with the parts.
    """

    def __init__(self, model: ir.Model) -> None:
        self.model = model

    @cached_property
    def typing(self) -> Typing:
        """The types of all values."""
        return solve(self.model)

    @cached_property
    def _shapes(self) -> tuple[bool, dict[ir.Value, tuple[Size, ...] | None]]:
        """What follows of shapes, and whether what is declared was of other inputs."""
        found = inferred_shapes(self.model)
        if any(refuted(declared_sizes(value), sizes) for value, sizes in found.items()):
            return True, inferred_shapes(self.model, trust_unknown=False)
        return False, found

    def lift(self, part: Selection, request: str) -> ir.Model:
        """Return a part as a model.

        Args:
            part: What it is made of.
            request: What was asked for, for messages.

        Raises:
            Refused: No type is known of a value at the border.
        """
        values = (*part.inputs, *part.outputs)
        self._require_types(values, request)
        weights = list(part.initializers)
        piece = excerpt(self.model, part.nodes, list(part.inputs), list(part.outputs), weights)
        for old, new in zip(values, (*piece.graph.inputs, *piece.graph.outputs), strict=True):
            self._declare(old, new)
            if old.is_initializer() and old not in part.initializers:
                new.const_value = None
        _keep_functions(piece)
        self._describe(piece)
        return piece

    def _require_types(self, values: Iterable[ir.Value], request: str) -> None:
        unknown = [
            Refusal(
                _place(value), f"no type is known of '{value.name}'", "declare it in the source"
            )
            for value in values
            if self.typing.type_of(value) is None and value.type is None
        ]
        if unknown:
            raise Refused(request, unknown)

    def _declare(self, old: ir.Value, new: ir.Value) -> None:
        """Declare what is known of a value at a border."""
        if old.is_graph_input():
            return
        new.type = self.typing.type_of(old) or new.type
        tensor = old.const_value if old.is_initializer() else None
        if tensor is not None:
            new.shape = ir.Shape(tensor.shape.numpy())
            return
        stale, shapes = self._shapes
        declared, sizes, ours = declared_sizes(old), shapes.get(old), old.is_graph_output()
        if ours and declared is not None and not refuted(declared, sizes):
            return  # what is said of an output of the whole stays as it is
        dims = merged(declared, sizes, stale=stale, keep_names=ours)
        new.shape = None if dims is None else ir.Shape(dims)

    def _describe(self, piece: ir.Model) -> None:
        model = self.model
        piece.producer_name, piece.producer_version = model.producer_name, model.producer_version
        piece.domain, piece.model_version = model.domain, model.model_version
        piece.doc_string = model.doc_string
        piece.metadata_props.update(model.metadata_props)
        piece.graph.doc_string = model.graph.doc_string
        piece.graph.metadata_props.update(model.graph.metadata_props)


def _place(value: ir.Value) -> str:
    maker = value.producer()
    return f"'{value.name}'" if maker is None else name_node(maker)


def _keep_functions(piece: ir.Model) -> None:
    """Leave out the functions that no node calls, nor any function that one calls."""
    called: set[ir.OperatorIdentifier] = set()
    pending = [node.op_identifier() for s in scopes(piece) if not s.in_function for node in s.graph]
    bodies: dict[ir.OperatorIdentifier, list[ir.OperatorIdentifier]] = {}
    for scope in scopes(piece):
        if isinstance(scope.owner, ir.Function):
            calls = bodies.setdefault(scope.owner.identifier(), [])
            calls += [node.op_identifier() for node in scope.graph]
    while pending:
        name = pending.pop()
        if name in piece.functions and name not in called:
            called.add(name)
            pending += bodies.get(name, [])
    for name in [each for each in piece.functions if each not in called]:
        del piece.functions[name]
