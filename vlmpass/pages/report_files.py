"""Where pages and plots go: each in the place of one that it is newer than, all or none."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from vlmpass.ir_tools.errors import SaveError
from vlmpass.replacing import Sources, made_folder, refuse_taken, replacement

__all__ = ["ReportFiles"]


class ReportFiles:
    """Files of a comparison; those that are there are replaced if they are such files.

    Args:
        mark: What such a file begins with.
        folder: Where they go; it is made where that is `made`.
        names: Of the files.
        force: Whether anything else is replaced.
        *sources: What they are about, never replaced.
        made: Whether a folder that is not there will be.

    Raises:
        SaveError: Something else is in the way, or no file can be written there.
    """

    def __init__(
        self,
        mark: str,
        folder: Path,
        names: tuple[str, ...],
        force: bool,
        *sources: object,
        made: bool = False,
    ) -> None:
        self._mark, self._made = mark, made
        self._folder = Path(os.path.abspath(folder))
        self._sources = Sources(*sources)
        if os.path.lexists(self._folder) and not os.path.isdir(self._folder):
            raise SaveError(f"{self._folder} is no folder", remedy="name another folder")
        if not made and not os.path.isdir(self._folder):
            raise SaveError(f"the folder {self._folder} does not exist", remedy="create it first")
        for name in names:
            path = self._folder / name
            self._sources.refuse(path)
            refuse_taken(path, force or self._is_own(path))
        if made:
            with made_folder(self._folder):
                pass  # said now that it cannot be, and gone again

    def _is_own(self, path: Path) -> bool:
        if not os.path.isfile(path):
            return False
        try:
            with path.open(encoding="utf-8") as file:
                return file.read(len(self._mark)) == self._mark
        except (OSError, ValueError):
            return False

    def write(self, texts: Mapping[str, str]) -> None:
        """Write files by name; they appear whole and together, or not at all.

        Raises:
            SaveError: One cannot be written.
        """
        paths = [self._folder / name for name in texts]
        with made_folder(self._folder), replacement(paths[-1]) as swap:
            drafts = [swap.folder / f"draft{number}" for number in range(len(paths))]
            for draft, path, text in zip(drafts, paths, texts.values(), strict=True):
                try:
                    draft.write_text(text, encoding="utf-8", errors="replace", newline="\n")
                except OSError as error:
                    raise SaveError(f"{path} cannot be written: {error.strerror}") from error
            swap.set_aside((), paths, self._sources)
            for draft, path in zip(drafts, paths, strict=True):
                swap.put(draft, path)
