"""Large inline tensors stay in the .onnx file: the message is parsed without their bytes.

protobuf holds a parsed message whole in memory. This walks the wire format instead, copies all but
the large `raw_data` fields, and puts where they lie in their place, so that a model of any size
is parsed in a few megabytes.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass, field
from typing import TypeAlias

import onnx

from vlmpass.ir_tools.proto.wire import Field, WireError, bytes_head, fields

__all__ = ["without_payloads"]

_DEEPEST = 92  # protobuf reads 100, of which the type of a value takes up to eight
_Piece: TypeAlias = "bytes | memoryview"


@dataclass
class _Kind:
    """Which fields of a message lead to tensors; their numbers come from onnx's own descriptors."""

    children: dict[int, _Kind] = field(default_factory=dict)
    payload: int | None = None


def _kinds() -> _Kind:
    tensor, graph, node, attribute = _Kind(), _Kind(), _Kind(), _Kind()
    function, model = _Kind(), _Kind()

    def link(kind: _Kind, proto: type, **children: _Kind) -> None:
        fields = proto.DESCRIPTOR.fields_by_name  # type: ignore[attr-defined]
        kind.children = {fields[name].number: child for name, child in children.items()}

    link(model, onnx.ModelProto, graph=graph, functions=function)
    link(graph, onnx.GraphProto, node=node, initializer=tensor)
    link(function, onnx.FunctionProto, node=node, attribute_proto=attribute)
    link(node, onnx.NodeProto, attribute=attribute)
    link(attribute, onnx.AttributeProto, t=tensor, tensors=tensor, g=graph, graphs=graph)
    tensor.payload = onnx.TensorProto.DESCRIPTOR.fields_by_name["raw_data"].number
    return model


_MODEL = _kinds()


def without_payloads(data: mmap.mmap | bytes, threshold: int, key: str) -> bytes:
    """Return a serialized ModelProto without its large tensor payloads.

    Args:
        data: The serialized model.
        threshold: Bytes from which on a `raw_data` field is left out.
        key: The location of the external data that such a tensor gets instead, beside their
            `offset` and `length` within `data`. Nothing in the model may know it.

    Raises:
        WireError: It is not a protobuf message, or is cut short.
    """
    with memoryview(data) as view:
        pieces = _Walk(view, threshold, key).message(0, len(view), _MODEL, 0)
        try:
            return b"".join(pieces)
        finally:
            for piece in pieces:
                if isinstance(piece, memoryview):
                    piece.release()


@dataclass
class _Walk:
    view: memoryview
    threshold: int
    key: str

    def message(self, start: int, stop: int, kind: _Kind, depth: int) -> list[_Piece]:
        """Return the pieces of a message, the parts that stay as they are in one."""
        if depth > _DEEPEST:
            raise WireError(f"the message at byte {start} lies too deep", too_deep=True)
        pieces: list[_Piece] = []
        payloads: list[range] = []
        copied = start
        for each in fields(self.view, start, stop):
            if each.sized and each.stop - each.start >= self.threshold:
                replaced = self._replaced(each, kind, depth, payloads)
                if replaced is not None:
                    pieces += [self.view[copied : each.at], *replaced]
                    copied = each.stop
        pieces.append(self.view[copied:stop])
        # After whatever the tensor says of its place, such as that its data are inline: of a field
        # that is there twice, the last one counts.
        pieces += [_reference(self.key, payload) for payload in payloads[-1:]]
        return pieces

    def _replaced(
        self, each: Field, kind: _Kind, depth: int, payloads: list[range]
    ) -> list[_Piece] | None:
        if each.number == kind.payload:
            payloads.append(range(each.start, each.stop))
            return []
        child = kind.children.get(each.number)
        if child is None:
            return None
        inner = self.message(each.start, each.stop, child, depth + 1)
        return [bytes_head(each.number, sum(map(len, inner))), *inner]


def _reference(key: str, payload: range) -> bytes:
    tensor = onnx.TensorProto(data_location=onnx.TensorProto.EXTERNAL)
    for name, value in (("location", key), ("offset", payload.start), ("length", len(payload))):
        tensor.external_data.add(key=name, value=str(value))
    serialized: bytes = tensor.SerializeToString()
    return serialized
