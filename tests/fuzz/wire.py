"""Protobuf's wire format, taken apart and put together again with the help of descriptors.

Messages are lists of fields in file order, so that what the library would not write can be: a field
twice, both of a oneof, a string that is no UTF-8, an enum's unknown number, a wrong wire type.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from vlmpass.ir_tools.proto.wire import to_varint

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


@dataclass
class Field:
    """One field as it stands in a message: its number, wire type and content."""

    number: int
    wire: int
    value: int | bytes

    def packed(self) -> bytes:
        tag = to_varint(self.number << 3 | self.wire)
        if self.wire == VARINT:
            return tag + to_varint(int(self.value) & (2**64 - 1))
        assert isinstance(self.value, bytes)
        return tag + (to_varint(len(self.value)) if self.wire == BYTES else b"") + self.value


Fields = list[Field]
Path = tuple[int, ...]
"""Which field of a message, which field of that one …, by place."""


def unpack(data: bytes) -> Fields:
    """Take a message apart, one level deep."""
    fields, at = [], 0
    while at < len(data):
        tag, at = _varint(data, at)
        wire = tag & 7
        if wire == VARINT:
            value, at = _varint(data, at)
            fields.append(Field(tag >> 3, wire, value))
            continue
        size = {FIXED64: 8, FIXED32: 4}.get(wire)
        if size is None:
            size, at = _varint(data, at)
        fields.append(Field(tag >> 3, wire, data[at : at + size]))
        at += size
    return fields


def pack(fields: Fields) -> bytes:
    return b"".join(field.packed() for field in fields)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def messages(data: bytes, descriptor: Any) -> Iterator[tuple[Path, Any, bytes]]:
    """Yield a message and all within it: where, of what kind, and its bytes."""
    pending: list[tuple[Path, Any, bytes]] = [((), descriptor, data)]
    while pending:
        path, kind, content = pending.pop()
        yield path, kind, content
        for index, field in enumerate(unpack(content)):
            known = kind.fields_by_number.get(field.number)
            if known is not None and known.message_type and isinstance(field.value, bytes):
                pending.append(((*path, index), known.message_type, field.value))


def edited(data: bytes, path: Path, edit: Callable[[Fields], Fields]) -> bytes:
    """Return a message with the fields of one within it changed."""
    fields = unpack(data)
    if not path:
        return pack(edit(fields))
    inner = fields[path[0]].value
    assert isinstance(inner, bytes)
    fields[path[0]].value = edited(inner, path[1:], edit)
    return pack(fields)


def encoded(known: Any, value: Any) -> Field:
    """Return a value as the field that a descriptor tells of; packed lists as one element."""
    kind = known.type
    if kind in (known.TYPE_STRING, known.TYPE_BYTES, known.TYPE_MESSAGE):
        return Field(known.number, BYTES, value)
    if kind == known.TYPE_FLOAT:
        return Field(known.number, FIXED32, struct.pack("<f", value))
    if kind == known.TYPE_DOUBLE:
        return Field(known.number, FIXED64, struct.pack("<d", value))
    return Field(known.number, VARINT, value)
