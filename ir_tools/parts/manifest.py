"""What a folder of parts says of itself: which files, in which order, and what goes where."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vlmpass.ir_tools.errors import ModelError, SaveError
from vlmpass.ir_tools.system.paths import path_text

__all__ = ["MANIFEST", "Manifest", "Part", "is_manifest", "read_manifest", "write_manifest"]

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
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    parts: tuple[Part, ...]
    folder: Path

    def path_of(self, part: Part) -> Path:
        """Return the model file of a part."""
        return self.folder / part.file

    @property
    def last_use(self) -> dict[str, int]:
        """The last part that takes a value, by name."""
        return {name: index for index, part in enumerate(self.parts) for name in part.inputs}


def write_manifest(manifest: Manifest) -> Path:
    """Write the manifest into its folder; it appears whole or not at all.

    Raises:
        SaveError: It cannot be written.
    """
    path = manifest.folder / MANIFEST
    data = {"format": _FORMAT, "version": _VERSION, **asdict(manifest)}
    del data["folder"]
    text = json.dumps(data, indent=2, ensure_ascii=False) + "\n"
    beside = path.with_name(f".{MANIFEST}.{os.getpid()}")
    try:
        with beside.open("w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise SaveError(f"{path} cannot be written: {error.strerror}") from error
    return path


def is_manifest(path: Path) -> bool:
    """Whether a file is a manifest of parts."""
    try:
        return bool(json.loads(path.read_text(encoding="utf-8")).get("format") == _FORMAT)
    except (OSError, ValueError, AttributeError):
        return False


def read_manifest(path: str | os.PathLike[str]) -> Manifest:
    """Read a manifest, and hold what it says to what is there.

    Args:
        path: The manifest, or its folder.

    Raises:
        ModelError: It is none, or a part is not there, or takes what nothing gives.
    """
    given = Path(path_text(path, ModelError, "the manifest"))
    file = given / MANIFEST if given.is_dir() else given
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        remedy = f"name a folder that vlmpass split made, or its {MANIFEST}"
        raise ModelError(f"{file} cannot be read: {error.strerror}", remedy=remedy) from error
    except ValueError as error:
        raise ModelError(f"{file} is no manifest of parts: {error}") from error
    if not isinstance(data, dict) or data.get("format") != _FORMAT:
        raise ModelError(f"{file} is no manifest of parts")
    if data.get("version") != _VERSION:
        raise ModelError(f"{file} is of version {data.get('version')}, and {_VERSION} is read")
    try:
        parts = tuple(_part(each) for each in data["parts"])
        found = Manifest(_names(data["inputs"]), _names(data["outputs"]), parts, file.parent)
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{file} is not as split writes it: {error!r}") from error
    _hold(found)
    return found


def _part(data: Mapping[str, Any]) -> Part:
    name, file = str(data["name"]), str(data["file"])
    if os.path.basename(file) != file:
        raise ValueError(f"'{file}' does not lie beside it")
    types = {str(name): str(text) for name, text in data.get("types", {}).items()}
    nodes, nbytes = int(data.get("nodes", 0)), int(data.get("nbytes", 0))
    return Part(name, file, _names(data["inputs"]), _names(data["outputs"]), types, nodes, nbytes)


def _names(data: Sequence[object]) -> tuple[str, ...]:
    if isinstance(data, str) or not all(isinstance(each, str) for each in data):
        raise TypeError("names are to be a list of texts")
    return tuple(map(str, data))


def _hold(found: Manifest) -> None:
    given = set(found.inputs)
    for part in found.parts:
        path = found.path_of(part)
        if not path.is_file():
            raise ModelError(f"{path}, the part '{part.name}', is not there")
        missing = [name for name in part.inputs if name not in given]
        if missing:
            raise ModelError(f"nothing before the part '{part.name}' gives '{missing[0]}'")
        given.update(part.outputs)
    missing = [name for name in found.outputs if name not in given]
    if missing:
        raise ModelError(f"no part gives the output '{missing[0]}'")
