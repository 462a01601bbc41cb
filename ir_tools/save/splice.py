"""Large weights put into serialised protobufs without ever holding them in memory.

A message is serialised with a short mark in the place of each weight; here the marks are found and
the lengths of all messages around them are set to what they become.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from vlmpass.ir_tools.proto.wire import bytes_head, fields

__all__ = ["mark", "spliced"]

_MAGIC = bytes.fromhex("8f3ac17e55d2096bb4e0f6713d9a28cc")
_MARK_BYTES = len(_MAGIC) + 8


def mark(number: int) -> bytes:
    """Return what stands for weight `number` in a message."""
    return _MAGIC + number.to_bytes(8, "little")


class _Splicer:
    def __init__(self, data: bytes, sizes: Sequence[int]) -> None:
        self.data, self.sizes = data, sizes
        self.marks: list[int] = []
        position = data.find(_MAGIC)
        while position >= 0:
            self.marks.append(position)
            position = data.find(_MAGIC, position + _MARK_BYTES)

    def message(self, start: int, stop: int) -> tuple[list[bytes | int], int]:
        """Return the pieces of a message, a number for each weight, and their bytes in all."""
        pieces: list[bytes | int] = []
        total, copied = 0, start
        for each in fields(self.data, start, stop):
            first = bisect_left(self.marks, each.start)
            if first < len(self.marks) and self.marks[first] < each.stop:
                inner, length = self.payload(each.start, each.stop, self.marks[first])
                head = self.data[copied : each.at] + bytes_head(each.number, length)
                pieces += [head, *inner]
                total += len(head) + length
                copied = each.stop
        pieces.append(self.data[copied:stop])
        return pieces, total + stop - copied

    def payload(self, start: int, stop: int, found: int) -> tuple[list[bytes | int], int]:
        if found != start or stop - start != _MARK_BYTES:
            return self.message(start, stop)
        number = int.from_bytes(self.data[start + len(_MAGIC) : stop], "little")
        return [number], self.sizes[number]


def spliced(data: bytes, sizes: Sequence[int]) -> tuple[list[bytes | int], int]:
    """Return what to write in place of a serialised message with marks.

    Args:
        data: The message.
        sizes: Bytes of each weight, by its number.

    Returns:
        Pieces in order, bytes as they are and numbers for weights, and their bytes in all.
    """
    return _Splicer(data, sizes).message(0, len(data))
