"""Mutants of model files: of their bytes, of the fields that these spell, and of what fields hold.

Descriptors say what a field is, so that each gets odd values of its own kind: texts that are no
UTF-8, empty or huge ones, names and paths from elsewhere; extreme and unknown numbers; fields that
are there twice, in the wrong wire type, or both of two that exclude each other.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx

from .file_kinds import KINDS
from .wire import BYTES, FIXED32, FIXED64, VARINT, Field, Fields, edited, messages, pack, unpack

Rng = np.random.Generator
_TEXTS = (
    b"", b"\xff\xfe", b"na\xefve", b"x", b"y", b"w", b"a" * 70_000, b"a\nb", b"\x1b[31m", b"\0",
    "é→\u202e".encode(), b"../w.bin", b"/etc/hostname", b"w.bin", b"-1", b"0", b"9" * 20, b"4096",
     b"ai.onnx", b"com.microsoft", b"Relu", b"If", b"Constant", b"batch", b"location",
    b"offset", b"length", b"basepath", b"SCALE_TENSOR", b"n*n", b"1", b"value", b"to", b"axis",
)  # fmt: skip
_NUMBERS = (0, 1, 2, 3, 7, 8, 13, 16, 18, 23, 28, 77, 127, 2**31 - 1, 2**31, 2**32, 2**40, 2**62,
            2**63 - 1, 2**63, 2**64 - 1, 2**64 - 2, 2**64 - 2**31)  # fmt: skip
_FLOATS = (b"\0\0\xc0\x7f", b"\0\0\x80\x7f", b"\0\0\x80\xff", b"\0\0\0\0", b"\xff\xff\x7f\x7f")
_MOST = 4


def mutant(seed: int, number: int) -> tuple[str, bytes, dict[str, bytes]]:
    """Return the kind of a seed, the bytes of the model file and the files beside it."""
    rng = np.random.default_rng([seed, number])
    kind = str(rng.choice(list(KINDS)))
    data, files = serialized(kind), dict(KINDS[kind]()[1])
    for _ in range(int(rng.integers(1, _MOST + 1))):
        if files and rng.random() < 0.1:
            files = _other_files(rng, files)
        data = _MUTATIONS[int(rng.choice(len(_MUTATIONS), p=_WEIGHTS))](rng, data)
    return kind, data, files


@functools.cache
def serialized(kind: str) -> bytes:
    return KINDS[kind]()[0].SerializeToString()


def _other_files(rng: Rng, files: Mapping[str, bytes]) -> dict[str, bytes]:
    cut = int(rng.integers(0, 200))
    return {name: content[: len(content) - cut] for name, content in files.items() if cut < 150}


def _bytes(rng: Rng, data: bytes) -> bytes:
    """Flip, cut, repeat or insert bytes, wherever."""
    changed = bytearray(data)
    for _ in range(int(rng.integers(1, 5))):
        at = int(rng.integers(len(changed) + 1))
        way = int(rng.integers(5))
        if way == 0 and at < len(changed):
            changed[at] ^= 1 << int(rng.integers(8))
        elif way == 1 and at < len(changed):
            changed[at] = int(rng.integers(256))
        elif way == 2:
            del changed[at : at + int(rng.integers(1, 9))]
        elif way == 3:
            changed[at:at] = rng.bytes(int(rng.integers(1, 9)))
        else:
            end = min(len(changed), at + int(rng.integers(1, 40)))
            changed[at:at] = changed[at:end]
    return bytes(changed[: int(rng.integers(len(changed) + 1))] if rng.random() < 0.1 else changed)


def _at_a_message(change: Callable[[Rng, Any, Fields], Fields]) -> Callable[[Rng, bytes], bytes]:
    """Return a mutation that changes one message, of a kind chosen first, then one of that kind."""

    def mutation(rng: Rng, data: bytes) -> bytes:
        try:
            found = list(messages(data, onnx.ModelProto.DESCRIPTOR))
        except (IndexError, AssertionError):
            return data  # another mutation left no message
        kinds = sorted({each[1].full_name for each in found})
        kind = str(rng.choice(kinds))
        some = [each for each in found if each[1].full_name == kind]
        path, descriptor, _ = some[int(rng.integers(len(some)))]
        return edited(data, path, lambda fields: change(rng, descriptor, fields))

    return mutation


def _odd_field(rng: Rng, descriptor: Any, fields: Fields) -> Fields:
    """Set any field of the message, whether it is there or not, to an odd value."""
    known = descriptor.fields[int(rng.integers(len(descriptor.fields)))]
    odd = odd_value(rng, known)
    there = [index for index, field in enumerate(fields) if field.number == known.number]
    if there and rng.random() < 0.7:
        fields[there[int(rng.integers(len(there)))]] = odd
    else:
        fields.insert(int(rng.integers(len(fields) + 1)), odd)
    return fields


def odd_value(rng: Rng, known: Any) -> Field:
    """Return a value of the field's own kind, as the file would hold it."""
    if known.type == known.TYPE_MESSAGE:
        return Field(known.number, BYTES, _other_message(rng, known.message_type))
    if known.type in (known.TYPE_STRING, known.TYPE_BYTES):
        return Field(known.number, BYTES, _TEXTS[int(rng.integers(len(_TEXTS)))])
    if known.type == known.TYPE_FLOAT:
        return Field(known.number, FIXED32, _FLOATS[int(rng.integers(len(_FLOATS)))])
    if known.type == known.TYPE_DOUBLE:
        return Field(known.number, FIXED64, _FLOATS[int(rng.integers(len(_FLOATS)))] * 2)
    return Field(known.number, VARINT, _NUMBERS[int(rng.integers(len(_NUMBERS)))])


def _other_message(rng: Rng, descriptor: Any) -> bytes:
    """Return a message of that kind from any seed, or one of few odd fields, or an empty one."""
    way = rng.random()
    bank = _bank().get(descriptor.full_name, ())
    if way < 0.5 and bank:
        return bank[int(rng.integers(len(bank)))]
    if way < 0.9:
        fields: Fields = []
        for _ in range(int(rng.integers(1, 4))):
            fields = _odd_field(rng, descriptor, fields) if len(fields) < 4 else fields
        return pack(fields)
    return b""


@functools.cache
def _bank() -> dict[str, tuple[bytes, ...]]:
    found: dict[str, dict[bytes, None]] = {}
    for kind in KINDS:
        for _, descriptor, content in messages(serialized(kind), onnx.ModelProto.DESCRIPTOR):
            found.setdefault(descriptor.full_name, {})[content] = None
    return {name: tuple(contents) for name, contents in found.items()}


def _drop(rng: Rng, descriptor: Any, fields: Fields) -> Fields:
    del descriptor
    if fields:
        del fields[int(rng.integers(len(fields)))]
    return fields


def _twice(rng: Rng, descriptor: Any, fields: Fields) -> Fields:
    """Repeat a field, a few times or many."""
    del descriptor
    if fields:
        at = int(rng.integers(len(fields)))
        fields[at:at] = [fields[at]] * int(rng.choice([1, 1, 2, 70, 300]))
    return fields


def _swap(rng: Rng, descriptor: Any, fields: Fields) -> Fields:
    del descriptor
    rng.shuffle(fields)  # type: ignore[arg-type]
    return fields


def _other_wire(rng: Rng, descriptor: Any, fields: Fields) -> Fields:
    """Give a field another wire type or number, as no writer would."""
    del descriptor
    if fields:
        field = fields[int(rng.integers(len(fields)))]
        if rng.random() < 0.5:
            field.number = int(rng.choice([1, 2, 5, 15, 99, 9999, 2**28]))
        else:
            field.wire = int(rng.choice([VARINT, FIXED64, BYTES, FIXED32]))
            sizes = {FIXED64: 8, FIXED32: 4}
            field.value = 5 if field.wire == VARINT else b"\1" * sizes.get(field.wire, 3)
    return fields


def _text_of_another(rng: Rng, descriptor: Any, fields: Fields) -> Fields:
    """Put a text of this message in the place of another, so that names clash or dangle."""
    texts = {each.number for each in descriptor.fields if each.type == each.TYPE_STRING}
    there = [field for field in fields if field.number in texts and field.wire == BYTES]
    if len(there) > 1:
        first, second = (there[int(index)] for index in rng.integers(len(there), size=2))
        first.value = second.value
    return fields


_MUTATIONS = (
    _bytes,
    _at_a_message(_odd_field),
    _at_a_message(_drop),
    _at_a_message(_twice),
    _at_a_message(_swap),
    _at_a_message(_other_wire),
    _at_a_message(_text_of_another),
)
_WEIGHTS = (0.1, 0.5, 0.12, 0.08, 0.05, 0.05, 0.1)
__all__ = ["mutant", "odd_value", "serialized", "unpack"]
