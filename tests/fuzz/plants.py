"""Faults to plant in the product, so that a generator can be seen to catch them."""

from __future__ import annotations

from collections.abc import Callable

import onnx
import onnx_ir as ir
import pytest
from google.protobuf.message import Message

from vlmpass.ir_tools.load.graph_reader import GraphReader
from vlmpass.ir_tools.proto import graph_writer

Plant = Callable[[pytest.MonkeyPatch], None]


def nothing(*_: object, **__: object) -> None:
    return None


def patch(owner: object, name: str, new: object = nothing) -> Plant:
    """Put something else in the place of a function; by default, one that does nothing."""
    return lambda monkeypatch: monkeypatch.setattr(owner, name, new)


def then(owner: object, name: str, more: Callable[[object], object]) -> Plant:
    """Let a function do something more with what it returns, or with its first argument."""
    real = getattr(owner, name)

    def changed(*args: object, **options: object) -> object:
        result = real(*args, **options)
        more(result if result is not None else args[0])
        return result

    return patch(owner, name, changed)


def untyped_inputs(
    reader: GraphReader, proto: onnx.FunctionProto, infos: object
) -> dict[str, ir.Value]:
    """Read the inputs of a function as onnx_ir does: without what is said of them."""
    return {name: ir.Value(name=name) for name in proto.input}


def named_outputs(node: ir.Node) -> list[str]:
    """Name what a node makes as onnx_ir does: not what has no name at the end."""
    names = [value.name or "" for value in node.outputs]
    while names and not names[-1]:
        names.pop()
    return names


def without(name: str) -> Plant:
    """Let serialising forget a field."""
    real = graph_writer._GraphWriter.model

    def forgetful(writer: graph_writer._GraphWriter, model: ir.Model) -> onnx.ModelProto:
        made = real(writer, model)
        for message in _all(made):
            if any(field.name == name for field in message.DESCRIPTOR.fields):
                message.ClearField(name)
        return made

    return patch(graph_writer._GraphWriter, "model", forgetful)


def _all(message: Message) -> list[Message]:
    found, pending = [], [message]
    while pending:
        found.append(pending.pop())
        for field, value in found[-1].ListFields():
            if field.message_type:
                pending += value if field.is_repeated else [value]
    return found
