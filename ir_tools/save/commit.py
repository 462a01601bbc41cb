"""Prepared files put in their places, so that at every instant the old or the new output is whole.

Data files go first and the model file last. Where a new data file wants the very name that the old
model refers to, neither order is safe. Then the model file is switched twice: first to one that
refers to the new data where they were prepared, in the temporary folder; now nobody refers to the
old data, they go away and the new ones get their names besides those they have; last to the final
model file. Each switch is one rename.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from vlmpass.ir_tools.errors import SaveError
from vlmpass.ir_tools.save.copying import copy_range
from vlmpass.ir_tools.save.references import Folder

if sys.platform == "linux":
    import fcntl
else:
    fcntl = None

__all__ = ["Prepared", "UnfinishedError", "copied", "put_in_place", "stale_files"]


class UnfinishedError(SaveError):
    """The new output is whole, but refers to data in the temporary folder."""


@dataclass(frozen=True)
class Prepared:
    """A file that is ready to take its name.

    Attributes:
        path: Where it was prepared.
        final: Where it goes.
        copy: What goes there instead while the model refers to `path`; None for a second name.
    """

    path: Path
    final: Path
    copy: Path | None = None


def _sync_folder(folder: Path) -> None:
    """Make the names in a folder durable, where the system can do that."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def copied(path: Path) -> Path | None:
    """Return a copy of a file, made now that failing is safe; None where a second name must do.

    A copy costs nothing where the file system shares blocks, and little where the file is small;
    else it is made only where a file cannot have two names.
    """
    probe = path.with_name(f"{path.name}.second")
    if _shares_blocks(path, probe):
        return probe
    try:
        os.link(path, probe)
        probe.unlink()
        if path.stat().st_size > _SMALL:
            return None
    except OSError:
        pass
    with path.open("rb") as source, probe.open("xb") as target:
        copy_range(source.fileno(), 0, target.fileno(), 0, path.stat().st_size)
        os.fsync(target.fileno())
    return probe


_SMALL = 16 << 20
"""Bytes up to which a file is copied rather than given a second name."""
_FICLONE = 0x40049409
"""Linux: let a file be a copy of another on blocks that both share, until one of them changes."""


def _shares_blocks(path: Path, copy: Path) -> bool:
    """Copy a file without its bytes, where the file system can (Btrfs, XFS, bcachefs)."""
    if fcntl is None:
        return False
    with path.open("rb") as source, copy.open("xb") as target:
        try:
            fcntl.ioctl(target.fileno(), _FICLONE, source.fileno())
            os.fsync(target.fileno())
        except OSError:
            copy.unlink()
            return False
    return True


def _switch_through(clashing: Sequence[Prepared], interim: Path, model: Prepared) -> None:
    """Replace a model whose data files have the names that the new ones want."""
    _sync_folder(interim.parent)
    interim.replace(model.final)
    _sync_folder(model.final.parent)
    try:
        for data in clashing:
            data.final.rename(data.path.with_name(f"{data.path.name}.old"))
        # Some tools refuse files with two names, so where these must be they are not for long:
        # nothing is waited for or freed in between. Should the power fail, journaling file systems
        # keep the order.
        for data in clashing:
            if data.copy is None:
                os.link(data.path, data.final)
            else:
                data.copy.rename(data.final)
        model.path.replace(model.final)
    except OSError as error:
        raise UnfinishedError(
            f"{model.final} is complete, but its data stayed in {interim.parent}: {error}",
            remedy="save it once more",
        ) from error
    for data in clashing:
        data.path.unlink()


def put_in_place(
    free: Sequence[Prepared], clashing: Sequence[Prepared], interim: Path, model: Prepared
) -> None:
    """Let prepared files take their names, the model file last.

    Args:
        free: Data files whose names are free.
        clashing: Data files whose names the model being replaced uses, and no other.
        interim: If there are such, a model file that refers to them where they were prepared.
        model: The model file.

    Raises:
        UnfinishedError: The new output is whole, but not under its final names.
        SaveError: A file cannot take its name; the folder is as before.
    """
    moved: list[Path] = []
    try:
        for data in free:
            data.path.rename(data.final)
            moved.append(data.final)
        _sync_folder(model.final.parent)
        if clashing:
            _switch_through(clashing, interim, model)
        else:
            model.path.replace(model.final)
    except OSError as error:
        for path in moved:
            with suppress(OSError):
                path.unlink()
        raise SaveError(f"{error.filename} cannot take its place: {error.strerror}") from error
    _sync_folder(model.final.parent)


def stale_files(owners: Folder, used: Sequence[Path]) -> list[Path]:
    """Return the data files that nobody refers to once the model that owns them is replaced.

    Args:
        owners: Who owns what, just before.
        used: The data files of the new model.
    """
    real = {os.path.realpath(path) for path in used}
    return [
        path
        for path in sorted(owners.replaced)
        if path not in (owners.output, *used)
        and os.path.realpath(path) not in real
        and os.path.lexists(path)
        and owners.owns(path)
    ]
