"""Which data files the models in a folder refer to, read off their files in bounded memory.

A model file is searched for its external-data entries as they stand in the file, without parsing
it, so that neither its size nor what else is in it matters.
"""

from __future__ import annotations

import codecs
import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cached_property
from pathlib import Path

from vlmpass.ir_tools.proto.wire import WireError, bytes_head, fields

__all__ = ["Folder", "data_files_of"]

_CHUNK_BYTES = 4 << 20
_OVERLAP_BYTES = 1 << 16

_LOCATION = bytes_head(1, len(b"location")) + b"location"
"""How an entry of a tensor's external data starts that names a file; the name is its field 2."""
# The IR version comes first in every known writer's files, then another field of a ModelProto.
_HEAD = re.compile(rb"\x08[\x01-\x1f][\x12\x1a\x22\x28\x32\x3a\x42\x72\xa2\xca\xd2]", re.DOTALL)
_QUOTED = rb'"((?:[^"\\]|\\.)*)"'
_TEXTS = {
    ".textproto": re.compile(rb'key:\s*"location"\s*value:\s*' + _QUOTED),
    ".json": re.compile(rb'"key":\s*"location",\s*"value":\s*' + _QUOTED),
    ".onnxtxt": re.compile(rb'"location":\s*' + _QUOTED),
}


def _binary(buffer: bytes) -> Iterator[bytes]:
    """Yield the names in a piece of a model file; one that is cut off is in the next piece, too."""
    at = buffer.find(_LOCATION)
    while at >= 0:
        at += len(_LOCATION)
        with suppress(WireError):
            each = next(fields(buffer, at, len(buffer)), None)
            if each is not None and each.number == 2 and each.sized:
                yield buffer[each.start : each.stop]
        at = buffer.find(_LOCATION, at)


def _unquoted(value: bytes, suffix: str) -> str:
    """Return what is quoted; nothing where it is no text, which no model has that can be read."""
    try:
        if suffix == ".json":
            return str(json.loads(b'"' + value + b'"'))
        return os.fsdecode(codecs.escape_decode(value)[0])
    except ValueError:
        return ""


def _names_a_file(location: str) -> bool:
    """Whether a file can have the name: not with a NUL, nor with half a character."""
    try:
        return b"\0" not in os.fsencode(location) and location != ""
    except UnicodeEncodeError:
        return False


def _locations(path: Path) -> set[str]:
    pattern = _TEXTS.get(path.suffix)
    found: set[bytes] = set()
    tail = b""
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            buffer = tail + chunk
            found.update(_binary(buffer) if pattern is None else pattern.findall(buffer))
            tail = buffer[-_OVERLAP_BYTES:]
    found.discard(b"")
    if pattern is None:
        return {os.fsdecode(location) for location in found}
    return {_unquoted(location, path.suffix) for location in found}


def data_files_of(model: Path) -> set[Path]:
    """Return the data files a model file refers to, as normal absolute paths.

    Args:
        model: A model file in any form; what is not one refers to nothing.

    Links are not followed: locations count from the folder in which the model's name lies. A
    backslash may be part of a name, or separate folders as on Windows: both files are named then.
    """
    folder = os.path.abspath(model.parent)
    locations = set(filter(_names_a_file, _locations(model)))
    locations |= {name.replace("\\", "/") for name in locations}
    return {Path(os.path.normpath(os.path.join(folder, name))) for name in locations}


def _named_as_model(path: Path) -> bool:
    return path.suffix == ".onnx" or path.suffix in _TEXTS


def _is_model(path: Path) -> bool:
    """Return whether a file is a model by its suffix or by how it starts."""
    try:
        if not path.is_file():
            return False
        if _named_as_model(path):
            return True
        with path.open("rb") as file:
            return _HEAD.match(file.read(4)) is not None
    except OSError:
        return False


def _models_in(folder: Path, is_model: Callable[[Path], bool]) -> list[Path]:
    try:
        return [path for path in sorted(folder.iterdir()) if is_model(path)]
    except OSError:
        return []


class Folder:
    """What the models in and around an output folder own, looked up when first asked.

    Args:
        output: The model file that is about to be written there.
        others: More of them, in the same folder.
    """

    def __init__(self, output: Path, *others: Path) -> None:
        self.output = output
        self._outputs = (output, *others)

    @cached_property
    def replaced(self) -> frozenset[Path]:
        """The data files of the models that are about to be replaced; empty if there are none."""
        inside = str(self.output.parent) + os.sep
        return frozenset(
            data
            for output in self._outputs
            if os.path.isfile(output)
            for data in data_files_of(output)
            if str(data).startswith(inside)
        )

    @cached_property
    def shared(self) -> frozenset[str]:
        """Real paths of all data files that other models in or just above the folder refer to."""
        folders = {self.output.parent}
        for path in self.replaced:
            folders.update(p for p in path.parents if self.output.parent in p.parents)
        models = _models_in(self.output.parent.parent, _named_as_model)
        for folder in sorted(folders):
            models += _models_in(folder, _is_model)
        return frozenset(
            os.path.realpath(data)
            for model in models
            if model not in self._outputs and model.is_file()
            for data in data_files_of(model)
        )

    def owns(self, path: Path) -> bool:
        """Return whether a data file belongs to the replaced models and to no other."""
        return path in self.replaced and os.path.realpath(path) not in self.shared
