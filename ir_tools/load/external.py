"""Finding the files that tensors refer to, and nothing but those.

A location is a relative path inside the model's folder. The file it leads to may be a link if what
it finally leads to lies in that folder, or in the folder where the model file itself really lies
when that is a link too, or among the blobs of the same repository in a Hugging Face cache. Hard
links are read: a file with several names is no less the model's, and caches and deduplicating
stores are full of them.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path

from vlmpass.ir_tools.errors import ModelError
from vlmpass.ir_tools.system.paths import lfs_pointer
from vlmpass.ir_tools.weights.files import Stamp

__all__ = ["DataFile", "DataFolder"]

_DRIVE = re.compile(r"[A-Za-z]:")


@dataclass(frozen=True)
class DataFile:
    """A data file.

    Attributes:
        location: Relative to the model's folder, with forward slashes, normalised.
        path: Absolute and without links.
        stamp: Its state.
    """

    location: str
    path: str
    stamp: Stamp


@dataclass
class DataFolder:
    """The folder of a model, in which locations are looked up; every file is examined once.

    Attributes:
        folder: As the caller named it.
        model: The real path of the model file, if there is one.
        needs: How many bytes each location must have at least, for messages about missing ones.
    """

    folder: Path
    model: str = ""
    needs: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.absolute = os.path.abspath(self.folder)
        self._root = os.path.realpath(self.folder)
        roots = [self._root]
        if self.model:
            roots.append(os.path.dirname(self.model))
        if blobs := _blobs_beside(self._root):
            roots.append(blobs)
        self._inside = tuple(os.path.join(os.path.normcase(root), "") for root in roots)
        self._parents: dict[str, str] = {}
        self._files: dict[str, DataFile] = {}

    def find(self, location: str, where: str) -> DataFile:
        """Return the file at a location.

        Args:
            location: As the model states it.
            where: The tensor, for messages.

        Raises:
            ModelError: It is outside, missing, or no regular file.
        """
        found = self._files.get(location)
        if found is None:
            found = self._files[location] = self._examine(location, where)
        return found

    def _examine(self, location: str, where: str) -> DataFile:
        parts = _parts(location, where)
        *folders, name = parts
        parent = self._real_parent("/".join(folders))
        path = os.path.join(parent, name)
        try:
            status = os.lstat(path)
            if stat.S_ISLNK(status.st_mode):
                path = os.path.realpath(path, strict=True)
                status = os.stat(path)
        except OSError as error:
            raise self._missing(parts, where, error, location) from error
        if not os.path.normcase(path).startswith(self._inside):
            raise ModelError(
                f"{where} has its data in {location}, a link to {path} outside of the model's "
                f"folder",
                remedy=f"copy that file into {self.folder}",
            )
        if not stat.S_ISREG(status.st_mode):
            raise ModelError(f"{where} has its data in {location}, which is no regular file")
        return DataFile("/".join(parts), path, Stamp.of(status))

    def _real_parent(self, folders: str) -> str:
        real = self._parents.get(folders)
        if real is None:
            real = os.path.realpath(os.path.join(self._root, folders))
            self._parents[folders] = real
        return real

    def _missing(self, parts: list[str], where: str, error: OSError, location: str) -> ModelError:
        text = f"{where} has its data in {location}, which {_why(error)} in {self.folder}"
        if not isinstance(error, FileNotFoundError):
            return ModelError(text)
        need = self.needs.get(location, 0)
        same, larger = self._candidates(need)
        if same:
            return ModelError(
                text, remedy=f"{same[0]} has the right size: rename it to {parts[-1]}?"
            )
        if larger:
            return ModelError(
                text, remedy=f"it has {need} bytes or more; is it {', '.join(larger[:3])}?"
            )
        return ModelError(text, remedy="download or copy it there (git lfs pull in a clone)")

    def _candidates(self, need: int) -> tuple[list[str], list[str]]:
        same, larger = [], []
        with contextlib.suppress(OSError):  # no candidates in a folder that cannot be listed
            for name in sorted(os.listdir(self._root)):
                if name.endswith((".onnx", ".json", ".txt", ".md")):
                    continue
                with contextlib.suppress(OSError):  # nor among links that lead nowhere
                    status = os.stat(os.path.join(self._root, name))
                    if not stat.S_ISREG(status.st_mode):
                        continue
                    if status.st_size == need:
                        same.append(name)
                    elif status.st_size > need > 0:
                        larger.append(name)
        return same, larger

    def check_fits(self, file: DataFile, offset: int, size: int, where: str) -> None:
        """Refuse a range that goes beyond the end of its file.

        Args:
            file: The file, as `find` returned it.
            offset: First byte of the range.
            size: Bytes of the range.
            where: The tensor, for messages.

        Raises:
            ModelError: Naming tensor and file; it says so if the file is a Git LFS pointer.
        """
        if offset + size <= file.stamp.size:
            return
        with open(file.path, "rb") as data:  # noqa: PTH123 - a path already resolved
            if lfs_pointer(data.read(64)):
                raise ModelError(
                    f"{file.location}, the data of {where}, is a Git LFS pointer",
                    remedy="run git lfs pull",
                )
        raise ModelError(
            f"{where} wants bytes {offset} to {offset + size} of {file.location}, which has "
            f"{file.stamp.size}",
            remedy="the file is cut short or not the model's: download or copy it again",
        )


def _parts(location: str, where: str) -> list[str]:
    """Split a location into names, or refuse it."""
    normal = location.replace("\\", "/")
    parts = [part for part in normal.split("/") if part not in ("", ".")]
    if "\0" in location:
        why = "has a NUL in it"
    elif normal.startswith("/") or _DRIVE.match(normal):
        why = "is absolute"
    elif ".." in parts:
        why = "leads up with .."
    elif not parts:
        why = "names no file"
    else:
        return parts
    raise ModelError(
        f"{where} has its data in {location!r}, which {why}",
        remedy="data must lie in the model's folder or below: move the file and the reference",
    )


def _blobs_beside(root: str) -> str | None:
    """Return where a Hugging Face cache keeps the files of the repository that `root` lies in."""
    for folder in (Path(root), *Path(root).parents):
        if folder.parent.name == "snapshots":
            return str(folder.parent.parent / "blobs")
    return None


def _why(error: OSError) -> str:
    return "is missing" if isinstance(error, FileNotFoundError) else f"fails ({error.strerror})"
