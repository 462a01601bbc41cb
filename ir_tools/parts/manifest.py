"""What a folder of parts says of itself: which files, in which order, and what goes where."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

from vlmpass.ir_tools.errors import ModelError, SaveError
from vlmpass.ir_tools.system.paths import path_text

__all__ = ["MANIFEST", "Manifest", "Part", "files_known", "manifest_of", "write_manifest"]

_T = TypeVar("_T")

MANIFEST = "manifest.json"
_FORMAT = "vlmpass-parts"
_VERSION = 1


@dataclass(frozen=True)
class Part:
    """One model of several that make a whole.

    Attributes:
        name: What it is called.
        file: The model file, beside the manifest.
        inputs: What it takes: inputs of the whole, or outputs of parts before it.
        outputs: What it gives.
        types: Element type and shape of all of them, such as ``float16[batch,seq,256]``.
        nodes: How many it has.
        nbytes: Bytes of its weights.
    """

    name: str
    file: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    types: Mapping[str, str]
    nodes: int
    nbytes: int


@dataclass(frozen=True)
class Manifest:
    """Parts that make a whole, in the order in which they run.

    Attributes:
        inputs: Of the whole, in order.
        outputs: Of the whole, in order: outputs of parts, or inputs handed through.
        parts: In the order in which they run.
        folder: Where the manifest lies.
        store: The model file that holds the weights of all parts; empty where each has its own.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    parts: tuple[Part, ...]
    folder: Path
    store: str = ""

    def path_of(self, part: Part) -> Path:
        """Return the model file of a part."""
        return self.folder / part.file

    @property
    def files(self) -> tuple[str, ...]:
        """The model files that it speaks of."""
        return (*(part.file for part in self.parts), *([self.store] if self.store else ()))

    @property
    def last_use(self) -> dict[str, int]:
        """The last part that takes a value, by name."""
        return {name: index for index, part in enumerate(self.parts) for name in part.inputs}


def write_manifest(manifest: Manifest, path: Path) -> None:
    """Write a manifest, to the disk.

    Raises:
        SaveError: It cannot be written.
    """
    data = {"format": _FORMAT, "version": _VERSION, **asdict(manifest)}
    del data["folder"]
    if not manifest.store:
        del data["store"]
    text = json.dumps(data, indent=2, ensure_ascii=False) + "\n"
    try:
        with path.open("w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except (OSError, UnicodeEncodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error.reason
        raise SaveError(f"{MANIFEST} cannot be written: {reason}") from error


def files_known(path: Path) -> tuple[str, ...] | None:
    """Return the files that a manifest speaks of, there or not; None where there is no manifest."""
    try:
        return None if os.path.islink(path) else _read(path).files
    except ModelError:
        return None


def manifest_of(parts: str | os.PathLike[str] | Manifest) -> Manifest:
    """Return a manifest, held to what is there.

    Args:
        parts: The manifest, its file, or its folder.

    Raises:
        ModelError: It is none, or a part is not there, or takes what nothing gives.
    """
    if isinstance(parts, Manifest):
        found = parts
    else:
        given = Path(path_text(parts, ModelError, "the manifest"))
        found = _read(given / MANIFEST if os.path.isdir(given) else given)
    _hold(found)
    return found


def _read(file: Path) -> Manifest:
    if os.path.exists(file) and not os.path.isfile(file):  # a pipe would be waited for
        raise ModelError(f"{file} is no file")
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        remedy = f"name a folder that vlmpass split made, or its {MANIFEST}"
        raise ModelError(f"{file} cannot be read: {error.strerror}", remedy=remedy) from error
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{file} is no manifest of parts: {error}") from error
    if not isinstance(data, dict) or data.get("format") != _FORMAT:
        raise ModelError(f"{file} is no manifest of parts")
    if data.get("version") != _VERSION:
        raise ModelError(f"{file} is of version {data.get('version')}, and {_VERSION} is read")
    entry = _Entry(data, "the manifest")
    try:
        return Manifest(
            entry.names("inputs"),
            entry.names("outputs"),
            tuple(map(_part, entry.entries("parts"))),
            file.parent,
            _beside(entry.of("store", str)) if "store" in data else "",
        )
    except ValueError as error:
        raise ModelError(f"{file} is not as split writes it: {error}") from error


@dataclass(frozen=True)
class _Entry:
    """An object of a manifest; what is not as it is to be raises a ValueError that says where."""

    data: Mapping[str, object]
    place: str

    def of(self, key: str, kind: type[_T]) -> _T:
        found = self.data.get(key)
        if not isinstance(found, kind) or isinstance(found, bool):
            wanted = {str: "a text", int: "an integer", list: "a list", dict: "an object"}[kind]
            raise ValueError(f"'{key}' of {self.place} is to be {wanted}")
        return found

    def names(self, key: str) -> tuple[str, ...]:
        found = self.of(key, list)
        if not all(isinstance(each, str) and each for each in found):
            raise ValueError(f"'{key}' of {self.place} is to be a list of names")
        return tuple(found)

    def entries(self, key: str) -> list[_Entry]:
        found = self.of(key, list)
        if not all(isinstance(each, dict) for each in found):
            raise ValueError(f"'{key}' of {self.place} is to be a list of objects")
        return [_Entry(each, f"part {number}") for number, each in enumerate(found, 1)]


def _part(entry: _Entry) -> Part:
    types = entry.of("types", dict)
    if not all(isinstance(each, str) for each in types.values()):
        raise ValueError(f"'types' of {entry.place} are to be texts by name")
    return Part(
        entry.of("name", str),
        _beside(entry.of("file", str)),
        entry.names("inputs"),
        entry.names("outputs"),
        types,
        entry.of("nodes", int),
        entry.of("nbytes", int),
    )


def _beside(file: str) -> str:
    """Return the name of a file that lies beside the manifest, and is another one."""
    if os.path.basename(file) != file or file in ("", os.curdir, os.pardir, MANIFEST):
        raise ValueError(f"'{file}' is no file beside it")
    if "\0" in file or not file.isprintable():  # half a character, for one
        raise ValueError(f"{file!r} is no name of a file")
    return file


def _hold(found: Manifest) -> None:
    """Hold a manifest to what is there, and to what it says itself.

    Raises:
        ModelError: It does not hold.
    """
    if not found.parts:
        raise ModelError("the manifest has no parts", remedy="split a model")
    for what, names in (
        ("two parts of the name", (part.name for part in found.parts)),
        ("two parts in the file", (part.file for part in found.parts)),
        ("twice the input", found.inputs),
        ("twice the output", found.outputs),
    ):
        _refuse_twice(f"the manifest has {what}", names)
    givers = dict.fromkeys(found.inputs, "the whole takes")
    for part in found.parts:
        path = found.path_of(part)
        if not os.path.isfile(path):
            raise ModelError(f"{path}, the part '{part.name}', is not there")
        _refuse_twice(f"the part '{part.name}' takes twice", part.inputs)
        missing = [name for name in part.inputs if name not in givers]
        if missing:
            raise ModelError(f"nothing before the part '{part.name}' gives '{missing[0]}'")
        for name in part.outputs:
            if name in givers:
                raise ModelError(f"the part '{part.name}' gives '{name}', which {givers[name]}")
            givers[name] = f"the part '{part.name}' gives"
    missing = [name for name in found.outputs if name not in givers]
    if missing:
        raise ModelError(f"no part gives the output '{missing[0]}'")
    idle = [name for name in found.inputs if name not in found.last_use]
    if idle:
        raise ModelError(f"no part takes the input '{idle[0]}'")


def _refuse_twice(what: str, names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ModelError(f"{what} '{name}'")
        seen.add(name)
