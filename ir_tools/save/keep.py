"""Which of the source's data files the output refers to as they are, instead of holding a copy."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vlmpass.ir_tools.errors import SaveError
from vlmpass.ir_tools.save.collect import Part
from vlmpass.ir_tools.save.layout import Layout, Weights, names_agree
from vlmpass.ir_tools.save.references import Folder
from vlmpass.ir_tools.save.size import format_size
from vlmpass.ir_tools.save.staging import is_staged
from vlmpass.ir_tools.system.listed import listed

__all__ = ["KeptFile", "choose_kept"]


@dataclass(frozen=True)
class KeptFile:
    """A data file that the output refers to and that was there before.

    Attributes:
        path: Absolute and real.
        name: Relative to the output's folder, with slashes.
        nbytes: Its size.
        state: What tells this state of the file from a later one.
    """

    path: str
    name: str
    nbytes: int
    state: tuple[int, int, int, int]

    @classmethod
    def at(cls, path: str, folder: str) -> KeptFile:
        """Describe a file below a folder, both real."""
        status = Path(path).stat()
        name = os.path.relpath(path, folder).replace(os.sep, "/")
        return cls(path, name, status.st_size, state_of(status))

    def check(self) -> None:
        """Check that the file is as it was when the output was planned.

        Raises:
            SaveError: It is not.
        """
        try:
            same = state_of(Path(self.path).stat()) == self.state
        except OSError:
            same = False
        if not same:
            raise SaveError(
                f"{self.path} was changed by someone else while the output was being prepared",
                remedy="load the source anew and save again",
            )


def state_of(status: os.stat_result) -> tuple[int, int, int, int]:
    """Return what tells one state of a file from another."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _why_not(path: str, folder: str, limit: int | None) -> str | None:
    """Return why the output cannot refer to a file, or None if it can."""
    if not path.startswith(folder.rstrip(os.sep) + os.sep):
        return "lies outside the output's folder"
    status = Path(path).stat()
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
        return "is a link, which other tools refuse"
    if is_staged(Path(path)):
        return "lies in a temporary folder"
    if limit is not None and status.st_size > limit:
        return f"is larger than {format_size(limit)}, the limit of a file"
    return None


def _used_bytes(parts: Sequence[Part], path: str) -> int:
    ranges = sorted(
        (p.source.offset, p.source.offset + p.source.length)
        for p in parts
        if p.source is not None and p.data_file == path
    )
    used = end = 0
    for start, stop in ranges:
        used += max(0, stop - max(start, end))
        end = max(end, stop)
    return used


def _mostly_unused(parts: Sequence[Part], file: KeptFile, owners: Folder) -> bool:
    """Whether a file would otherwise go away with the model it belongs to, and mostly could."""
    path = owners.output.parent / file.name
    return 2 * _used_bytes(parts, file.path) < file.nbytes and owners.owns(path)


def _why_not_these(
    parts: Sequence[Part], kept: dict[str, KeptFile], layout: Layout, output: Path
) -> str | None:
    """Return why a layout does not go with the kept files, or None if it does."""
    if layout is Layout.DEFAULT or not kept:
        return None
    if any(part.data_file not in kept for part in parts):
        return f"layout {layout.value} does not mix files that are there with new ones"
    names = [file.name for file in kept.values()]
    if not names_agree(layout, output, names):
        return f"layout {layout.value} wants other names than {listed(sorted(names), 3)}"
    return None


def choose_kept(
    parts: Sequence[Part], weights: Weights, layout: Layout, limit: int | None, owners: Folder
) -> dict[str, KeptFile]:
    """Return the data files to refer to, by real path.

    ``auto`` keeps a file when it can, unless only the model being replaced owns it and less than
    half of it is still used. Layouts other than default keep all or nothing.

    Args:
        parts: What lies outside the model file.
        weights: ``copy`` keeps nothing, ``keep`` refuses where a data file cannot be kept.
        layout: Of the output.
        limit: The most bytes a file may have, if there is a limit.
        owners: Who owns what in the output's folder.

    Raises:
        SaveError: ``keep`` was asked and something that is unchanged cannot be kept.
    """
    if weights == "copy":
        return {}
    folder = os.path.realpath(owners.output.parent)
    kept: dict[str, KeptFile] = {}
    for path in dict.fromkeys(path for part in parts if (path := part.data_file)):
        reason = _why_not(path, folder, limit)
        if reason is None:
            file = KeptFile.at(path, folder)
            if weights == "keep" or not _mostly_unused(parts, file, owners):
                kept[path] = file
        elif weights == "keep":
            raise SaveError(f"{path} cannot be kept: it {reason}", remedy="use --weights auto")
    reason = _why_not_these(parts, kept, layout, owners.output)
    if reason is not None and weights == "keep":
        raise SaveError(f"the data files cannot be kept: {reason}", remedy="use --weights auto")
    return kept if reason is None else {}
