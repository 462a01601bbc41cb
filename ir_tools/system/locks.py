"""Locks that die with the process that holds them, on every platform."""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["locked_folder", "try_lock", "wait_lock"]

if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int, wait: bool) -> None:
        mode = msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK
        msvcrt.locking(descriptor, mode, 1)

    def _open_folder(folder: Path) -> int:
        # A folder cannot be opened there, so a file named after it stands for it.
        digest = hashlib.sha256(os.fsencode(os.path.realpath(folder))).hexdigest()[:16]
        name = Path(tempfile.gettempdir()) / f"vlmpass-{digest}.lock"
        return os.open(name, os.O_RDWR | os.O_CREAT)

else:
    import fcntl

    def _lock(descriptor: int, wait: bool) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))

    def _open_folder(folder: Path) -> int:
        return os.open(folder, os.O_RDONLY)


def try_lock(descriptor: int) -> bool:
    """Lock an open file until it is closed or the process ends.

    Returns:
        False if someone else holds it, or the file system has no locks.
    """
    try:
        _lock(descriptor, wait=False)
    except OSError:
        return False
    return True


def wait_lock(descriptor: int) -> None:
    """Lock an open file as soon as its holder lets go; do nothing where there are no locks."""
    try:
        _lock(descriptor, wait=True)
    except OSError:
        return


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Hold off other writers of a folder, on file systems that have locks."""
    try:
        descriptor = _open_folder(folder)
    except OSError:
        yield
        return
    try:
        wait_lock(descriptor)
        yield
    finally:
        os.close(descriptor)
