"""What a save did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from vlmpass.ir_tools.weights import Tally

__all__ = ["How", "SaveReport", "SavedFile"]

How = Literal["written", "copied", "kept"]


@dataclass(frozen=True)
class SavedFile:
    """A file of the output.

    Attributes:
        name: Relative to the output's folder, with slashes.
        nbytes: Its size.
        how: ``written``; ``copied``, if every tensor in it is unchanged and was copied by the
            kernel; or ``kept``, if it was there before and is referred to as it is.
    """

    name: str
    nbytes: int
    how: How


@dataclass(frozen=True)
class SaveReport:
    """What was saved.

    Attributes:
        path: Of the model file, absolute.
        files: The model file and its data files.
        nbytes: Bytes written and copied; kept files do not count.
        tallies: By tensor, what casts lost; tensors that lost nothing are not listed.
        removed: Data files of the replaced model that were removed, relative to the folder.
        notes: What else the caller should know, one sentence each.
    """

    path: str
    files: tuple[SavedFile, ...]
    nbytes: int
    tallies: Mapping[str, Tally] = field(default_factory=dict)
    removed: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
