"""Every field of every message of onnx.proto, set to a value that would be recognised.

Loading, cloning and saving keeps it, or loading refuses the model by name. As a script:

    python -m tests.fuzz.losses [--all] [--only REGEX]
"""

from __future__ import annotations

import argparse
import logging
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import DecodeError

from vlmpass.ir_tools.errors import ModelError, SaveError, VlmpassError
from vlmpass.ir_tools.graph.clone import clone
from vlmpass.ir_tools.load import load
from vlmpass.ir_tools.save import save

from .canonical import lost
from .file_kinds import KINDS
from .wire import BYTES, VARINT, Field, Fields, edited, encoded, messages, pack, unpack

RECOGNISED = "recognised"
_NUMBER = 77
_UNKNOWN = 9999
_DEEPEST = 3
Edit = Callable[[Fields], Fields]


@dataclass(frozen=True)
class Case:
    """A model with one field set.

    Attributes:
        kind: Of the seed.
        place: Names of the fields that lead to the one that was set.
        what: How it was set.
        data: The model file.
    """

    kind: str
    place: str
    what: str
    data: bytes = b""

    def __str__(self) -> str:
        return f"{self.kind}: {self.place} {self.what}"


def cases(only: str = "", *, every: bool = False) -> Iterator[Case]:
    """Yield models, one for each field in each context; in each place with `every`.

    Args:
        only: A regular expression that is found in what a case is called.
        every: Whether to set fields in each place, not in one of each context.
    """
    seen: set[tuple[str, str]] = set()
    for kind, make in KINDS.items():
        data = make()[0].SerializeToString()
        for path, descriptor, content in messages(data, onnx.ModelProto.DESCRIPTOR):
            context = _context(data, path)
            for place, what, edit in _edits(descriptor, unpack(content)):
                case = Case(kind, f"{context}{place}", what)
                if (not every and (case.place, what) in seen) or not re.search(only, str(case)):
                    continue
                seen.add((case.place, what))
                yield replace(case, data=edited(data, path, edit))


def _edits(descriptor: Any, present: Fields) -> Iterator[tuple[str, str, Edit]]:
    """Yield ways to change a message: the field, how it is set, and what does it."""
    for known in descriptor.fields:
        for what, field in _values(known):
            yield known.name, what, _setter(field, beside=known.is_repeated)
        held = [field for field in present if field.number == known.number]
        if known.is_repeated and held:
            yield known.name, "twice", _setter(held[-1], beside=True)
            if known.type == known.TYPE_MESSAGE and isinstance(held[-1].value, bytes):
                other = _changed(held[-1].value, known.message_type)
                yield (
                    known.name,
                    "again, changed",
                    _setter(Field(known.number, BYTES, other), beside=True),
                )
    unknown = Field(_UNKNOWN, BYTES, RECOGNISED.encode())
    yield "(unknown)", "set", _setter(unknown, beside=True)


def _setter(field: Field, *, beside: bool) -> Edit:
    def put(fields: Fields) -> Fields:
        kept = fields if beside else [each for each in fields if each.number != field.number]
        return [*kept, field]

    return put


def _changed(message: bytes, descriptor: Any) -> bytes:
    """Return a message with another text or number in the last of its fields that hold one."""
    fields = unpack(message)
    for field in fields[::-1]:
        known = descriptor.fields_by_number.get(field.number)
        if field.wire == VARINT:
            field.value = _NUMBER
        elif known is not None and known.type == known.TYPE_STRING:
            field.value = RECOGNISED.encode()
        else:
            continue
        break
    return pack(fields)


def _context(data: bytes, path: tuple[int, ...]) -> str:
    names, descriptor = "", onnx.ModelProto.DESCRIPTOR
    for index in path:
        field = unpack(data)[index]
        known = descriptor.fields_by_number[field.number]
        names += f"{known.name}."
        descriptor = known.message_type
        assert isinstance(field.value, bytes)
        data = field.value
    return names


def _values(known: Any) -> Iterator[tuple[str, Field]]:
    """Yield recognisable values of a field, by what they are."""
    if known.type == known.TYPE_MESSAGE:
        yield "empty", Field(known.number, BYTES, b"")
        yield "filled", Field(known.number, BYTES, filled(known.message_type, _DEEPEST))
    elif known.type in (known.TYPE_STRING, known.TYPE_BYTES):
        yield "set", Field(known.number, BYTES, RECOGNISED.encode())
        yield "blank", Field(known.number, BYTES, b"")
    elif known.type == known.TYPE_ENUM:
        for value in known.enum_type.values:
            yield value.name, encoded(known, value.number)
    elif known.type in (known.TYPE_FLOAT, known.TYPE_DOUBLE):
        yield "set", encoded(known, 7.5)
    else:
        yield "set", encoded(known, _NUMBER)
        yield "zero", encoded(known, 0)


def filled(descriptor: Any, depth: int) -> bytes:
    """Return a message with every plain field set, and messages within it to a depth."""
    fields: Fields = []
    for known in descriptor.fields:
        if known.type == known.TYPE_MESSAGE:
            if depth:
                fields.append(Field(known.number, BYTES, filled(known.message_type, depth - 1)))
        elif known.containing_oneof is None or known == known.containing_oneof.fields[0]:
            fields.append(next(_values(known))[1])
    return pack(fields)


def judge(case: Case, folder: Path) -> str:
    """Return `kept` or `refused`, or what is wrong."""
    try:
        source = onnx.ModelProto.FromString(case.data)
    except DecodeError:
        return "refused: by protobuf"
    path, out = folder / "model.onnx", folder / "written.onnx"
    path.write_bytes(case.data)
    for name, content in KINDS[case.kind]()[1].items():
        (folder / name).write_bytes(content)
    spoken = _Spoken()
    logging.getLogger().addHandler(spoken)
    try:
        model = load(path)
    except ModelError as error:
        return _refusal(error)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is what is looked for
        return f"raised {type(error).__name__}: {error}"
    finally:
        logging.getLogger().removeHandler(spoken)
    try:
        save(clone(model), out)
    except SaveError as error:
        return _refusal(error)
    except Exception as error:  # noqa: BLE001 - as above
        return f"raised {type(error).__name__}: {error}"
    written = onnx.load(out, load_external_data=False)
    difference = lost(source, written, folder)
    said = f" (said in the log: {spoken.lines[0]})" if spoken.lines else ""
    return f"lost{said}\n{difference}" if difference else "kept"


def _refusal(error: VlmpassError) -> str:
    text = str(error)
    vague = "\n" in text or "held as IR" in text or "  " in text
    return f"vague: {text}" if vague else f"refused: {text}"


class _Spoken(logging.Handler):
    """Keeps what is logged: a log line is no refusal."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def word_of(verdict: str) -> str:
    """Return `kept`, `refused` or `wrong`."""
    word = verdict.partition(":")[0]
    return word if word in ("kept", "refused") else "wrong"


def findings(some: Iterator[Case]) -> Iterator[tuple[Case, str]]:
    """Yield each case with its verdict."""
    with tempfile.TemporaryDirectory(prefix="losses-") as folder:
        for case in some:
            yield case, judge(case, Path(folder))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--all", action="store_true", help="every place, not one of each context")
    parser.add_argument("--only", default="", help="places that this is found in")
    parser.add_argument("--show", default="", help="verdicts to print, beside those that are wrong")
    arguments = parser.parse_args()
    counts: Counter[str] = Counter()
    for case, verdict in findings(cases(arguments.only, every=arguments.all)):
        word = word_of(verdict)
        counts[word] += 1
        if word in ("wrong", arguments.show):
            print(f"{case}\n    " + verdict.replace("\n", "\n    "))
    print(dict(counts))
    return 1 if counts["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
