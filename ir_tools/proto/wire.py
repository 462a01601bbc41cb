"""The wire format of protobuf, read field by field and written, without parsing what is in it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, TypeAlias

__all__ = ["Bytes", "Field", "WireError", "bytes_head", "fields", "read_varint", "to_varint"]

Bytes: TypeAlias = "bytes | memoryview"
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
_LONGEST = 70
"""Bits of a number in ten bytes, which is as long as one may be."""


class WireError(Exception):
    """The bytes are no protobuf message, or end before it does."""

    def __init__(self, text: str, *, cut_short: bool = False, too_deep: bool = False) -> None:
        super().__init__(text)
        self.cut_short = cut_short
        self.too_deep = too_deep


class Field(NamedTuple):
    """Where one field of a message lies.

    Attributes:
        number: Its number.
        at: Where it starts, with its number and kind.
        start: Where its value starts, after its length if it has one.
        stop: Where it ends.
        sized: Whether it has a length: text, bytes, packed numbers, or another message.
    """

    number: int
    at: int
    start: int
    stop: int
    sized: bool


def fields(data: Bytes, start: int, stop: int) -> Iterator[Field]:
    """Yield the fields of a message.

    Args:
        data: What the message lies in.
        start, stop: Where.

    Raises:
        WireError: There is something else, or an end is missing.
    """
    at = start
    while at < stop:
        tag, body = read_varint(data, at, stop)
        number, kind = tag >> 3, tag & 7
        if kind == BYTES:
            length, body = read_varint(data, body, stop)
            end = body + length
        elif kind == VARINT:
            end = read_varint(data, body, stop)[1]
        elif kind in (FIXED32, FIXED64) and number:
            end = body + (4 if kind == FIXED32 else 8)
        else:
            raise WireError(f"byte {at} starts no field")
        if end > stop:
            raise WireError(f"the field at byte {at} ends at byte {end} of {stop}", cut_short=True)
        yield Field(number, at, body, end, kind == BYTES)
        at = end


def read_varint(data: Bytes, at: int, stop: int) -> tuple[int, int]:
    """Return a number and where it ends: seven bits a byte, the lowest first.

    Args:
        data: What it lies in.
        at: Where it starts.
        stop: Where it must have ended.

    Raises:
        WireError: It does not end.
    """
    value = shift = 0
    while at < stop and shift < _LONGEST:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise WireError(f"the number at byte {at} has no end", cut_short=at >= stop)


def to_varint(value: int) -> bytes:
    """Return the bytes of a number that is not negative."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def bytes_head(number: int, length: int) -> bytes:
    """Return what stands before the bytes of a field: its number and how many there are."""
    return to_varint(number << 3 | BYTES) + to_varint(length)
