"""A model that computes in float32 and rounds every value as half-precision hardware would.

ONNX Runtime's CPU computes float16 in float32 and rounds only where it must, so that an overflow
inside a chain of nodes never shows there. This twin shows it: every value of the narrow type goes
through a Cast to that type and back.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import onnx_ir as ir

from vlmpass.ir_tools.graph.names import Names
from vlmpass.ir_tools.graph.walk import Scope, scopes
from vlmpass.ir_tools.operators import Kind, named
from vlmpass.ir_tools.operators.type_texts import tensor
from vlmpass.ir_tools.types.cast_nodes import Casts
from vlmpass.ir_tools.types.retype import retype
from vlmpass.ir_tools.types.typing import Typing, require_well_typed, solve

__all__ = ["EMULATED", "emulate"]

EMULATED = {"float16": ir.DataType.FLOAT16, "bfloat16": ir.DataType.BFLOAT16}
"""The types that can be emulated, by name."""

_ADMITS_BFLOAT16 = 22
"""The opset at which the last of the operators that compute in floats admits it."""
_MOVES = named(Kind.MOVE) | {"Constant"}
"""Operators whose results are values that were rounded before."""


def emulate(model: ir.Model, dtype: ir.DataType) -> bool:
    """Round every value of a narrow type explicitly and compute in float32, in place.

    Args:
        model: A model of its own, such as a copy; its inputs and outputs of the narrow
            type become float32.
        dtype: FLOAT16 or BFLOAT16.

    Returns:
        Whether the model has values of that type.

    Raises:
        Refused: The model is not well typed, so that no hardware would run it.
    """
    with _admitting(model, dtype):
        return _emulate(model, dtype)


@contextmanager
def _admitting(model: ir.Model, dtype: ir.DataType) -> Iterator[None]:
    """Let Conv and its like take bfloat16 meanwhile, which exporters write below their opset.

    What is computed is float32, which they take at any opset.
    """
    before = model.opset_imports.get("")
    if dtype == ir.DataType.BFLOAT16 and before is not None and solve(model).conflicts:
        model.opset_imports[""] = max(before, _ADMITS_BFLOAT16)
    try:
        yield
    finally:
        if before is not None:
            model.opset_imports[""] = before


def _emulate(model: ir.Model, dtype: ir.DataType) -> bool:
    request = f"emulate {dtype.name.lower()}"
    typing = require_well_typed(model, request)
    rounded = [value for scope in scopes(model) for value in _rounded(scope, typing, dtype)]
    crossing = {
        value.producer(): "the rounding is what is emulated" for value in rounded if _is_cast(value)
    }
    kept = {node: reason for node, reason in crossing.items() if node is not None}
    mapping = {dtype: ir.DataType.FLOAT}
    if not retype(model, mapping, request=request, kept=kept):
        return False
    casts = Casts(Names.of(model))
    for value in rounded:
        if not _is_cast(value):
            _round(value, dtype, casts)
    return True


def _is_cast(value: ir.Value) -> bool:
    node = value.producer()
    return node is not None and (node.domain, node.op_type) == ("", "Cast")


def _round(value: ir.Value, dtype: ir.DataType, casts: Casts) -> None:
    """Let everything that takes a value take it rounded; an output keeps its name."""
    users = list(value.uses())
    reason = "the rounding is what is emulated"
    narrow = casts.to(value, tensor(dtype), reason)
    wide = casts.to(narrow, tensor(ir.DataType.FLOAT), reason)
    for node, index in users:
        if node is not narrow.producer():  # a Cast that was there already
            node.replace_input_with(index, wide)
    graph = value.graph
    if graph is None or not value.is_graph_output():
        return
    name = value.name
    value.name, wide.name = wide.name, name
    for index, output in enumerate(graph.outputs):
        if output is value:
            graph.outputs[index] = wide


def _rounded(scope: Scope, typing: Typing, dtype: ir.DataType) -> list[ir.Value]:
    """Return the values that a node of this graph rounds to the type."""
    return [
        value
        for node in scope.graph
        if node.domain or node.op_type not in _MOVES
        for value in node.outputs
        if typing.dtype(value) == dtype
    ]
