"""The temporary folder in which an output is prepared, and the removal of those left by a kill."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

from vlmpass.ir_tools.errors import SaveError
from vlmpass.ir_tools.save.orphans import remove_litter
from vlmpass.ir_tools.save.references import Folder
from vlmpass.ir_tools.system.locks import try_lock, wait_lock

__all__ = ["Staging", "is_staged", "remove_dead"]

_PREFIX, _SUFFIX, _LOCK = ".vlmpass-", ".tmp", "lock"


def _is_staging_name(name: str) -> bool:
    return name.startswith(_PREFIX) and name.endswith(_SUFFIX)


def is_staged(path: Path) -> bool:
    """Return whether a file lies in a temporary folder of this or another run."""
    return any(_is_staging_name(part) for part in path.parts)


def _remove_contents(folder: Path) -> None:
    for entry in sorted(folder.iterdir()):
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        elif entry.name != _LOCK:
            entry.unlink(missing_ok=True)


def _remove_rest(folder: Path) -> None:
    # The lock goes last, so that a kill on the way leaves a folder that the next run can remove.
    (folder / _LOCK).unlink(missing_ok=True)
    folder.rmdir()


class Staging:
    """A temporary folder beside the output that belongs to this process while it lives.

    It is named after the output and the process and holds a lock file; another run removes it when
    nobody holds that lock any more.

    Args:
        output: The model file to be written.

    Raises:
        SaveError: The output's folder cannot be written.
    """

    def __init__(self, output: Path) -> None:
        self._lock = -1
        stem = f"{_PREFIX}{output.name[:64]}-{os.getpid()}"
        number = 0
        while self._lock < 0:
            extra = f"-{number}" if number else ""
            self.path = output.parent / f"{stem}{extra}{_SUFFIX}"
            number += 1
            try:
                self.path.mkdir()
                self._lock = self._acquire()
            except FileExistsError:
                continue
            except OSError as error:
                raise SaveError(
                    f"the folder {output.parent} cannot be written: {error.strerror}",
                    remedy="choose another output folder",
                ) from error

    def _acquire(self) -> int:
        """Return the descriptor of the locked lock file, or -1 if a cleaner was faster."""
        try:
            descriptor = os.open(self.path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
        except FileNotFoundError:
            return -1
        # A cleaner may have been faster and be removing it: then the file is gone once we hold it.
        wait_lock(descriptor)
        try:
            if os.path.samestat(os.fstat(descriptor), (self.path / _LOCK).stat()):
                return descriptor
        except FileNotFoundError:
            pass
        os.close(descriptor)
        return -1

    def close(self, *, keep: bool = False) -> None:
        """Remove the folder and what is left in it; what cannot be removed now, the next run does.

        Args:
            keep: Leave it all to the next run, because a model refers to data in it.
        """
        with suppress(OSError):
            if not keep:
                _remove_contents(self.path)
        os.close(self._lock)
        with suppress(OSError):
            if not keep:
                _remove_rest(self.path)


def _used_by_models(output: Path) -> frozenset[str]:
    """Return the real paths of all data files that models in and around a folder refer to."""
    owners = Folder(output)
    return owners.shared | {os.path.realpath(path) for path in owners.replaced}


def remove_dead(output: Path) -> None:
    """Remove what killed runs left in the folder of an output.

    Data that a model refers to stay: a run may be killed just after it put a model in place whose
    data have yet to leave the temporary folder.
    """
    for path in sorted(output.parent.glob(f"{_PREFIX}*{_SUFFIX}")):
        try:
            descriptor = os.open(path / _LOCK, os.O_RDWR)
        except FileNotFoundError:
            # Killed between the folder and its lock; rmdir takes nothing but an empty folder.
            with suppress(OSError):
                path.rmdir()
            continue
        except OSError:
            continue
        dead = try_lock(descriptor)
        if dead:
            used = _used_by_models(output)
            remove_litter(path, used)
            inside = os.path.realpath(path) + os.sep
            dead = not any(data.startswith(inside) for data in used)
        with suppress(OSError):
            if dead:
                _remove_contents(path)
        os.close(descriptor)
        with suppress(OSError):
            if dead:
                _remove_rest(path)
