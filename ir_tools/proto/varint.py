"""Numbers as protobuf writes them: seven bits a byte, the lowest first."""

from __future__ import annotations

__all__ = ["to_varint"]


def to_varint(value: int) -> bytes:
    """Return the bytes of a number that is not negative."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
