"""What a kill in the middle of a commit may leave outside the temporary folder, written down first.

The list lies in the temporary folder. It only says what the next run may remove; no output depends
on it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterable
from contextlib import suppress
from pathlib import Path

__all__ = ["record_litter", "remove_litter"]

_NAME = "litter.json"


def _state(path: Path) -> list[int]:
    status = path.lstat()
    return [status.st_ino, status.st_size, status.st_mtime_ns]


def record_litter(
    staging: Path, new: Iterable[tuple[Path, Path]], stale: Iterable[Path], switch: Path
) -> None:
    """Write down what is litter if this process is killed from now on.

    Args:
        staging: The temporary folder.
        new: Data files, where they are prepared and where they go: litter until the model that
            refers to them is in place.
        stale: Data files of the model that is replaced: litter as soon as it is.
        switch: The prepared model file that leaves the temporary folder at that moment.
    """
    entries = {
        "switch": switch.name,
        "new": [[str(final), _state(path)] for path, final in new],
        "stale": [[str(path), _state(path)] for path in stale if os.path.lexists(path)],
    }
    with (staging / _NAME).open("x", encoding="utf-8") as file:
        json.dump(entries, file)
        file.flush()
        os.fsync(file.fileno())


def remove_litter(staging: Path, used: Collection[str]) -> None:
    """Remove what a killed run left, unless it changed since then or a model refers to it.

    Args:
        staging: The temporary folder of that run.
        used: Real paths of all data files that models refer to.
    """
    try:
        entries = json.loads((staging / _NAME).read_text(encoding="utf-8"))
        listed = [*entries["new"]]
        if not (staging / entries["switch"]).exists():
            listed += entries["stale"]
    except (OSError, ValueError, KeyError):
        # Killed before the list was whole, so before anything left the temporary folder.
        return
    for name, state in listed:
        path = Path(name)
        with suppress(OSError):
            if _state(path) == state and os.path.realpath(path) not in used:
                path.unlink()
