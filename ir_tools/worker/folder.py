"""Temporary folders whose owner may be killed: the next run removes what is left of them."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import tempfile
import time
from pathlib import Path

from vlmpass.ir_tools.system.locks import try_lock

__all__ = ["WorkFolder"]

_PREFIX = "vlmpass-run-"
_LOCK = "lock"
# A folder is locked right after it is made; whoever finds it in between must not think it is left.
_YOUNG = 1.0


class WorkFolder:
    """A temporary folder of this process; the first one of a process removes those of dead ones.

    Its owner holds a lock that dies with it, so that process numbers, which are used again and
    mean nothing to another machine that shares the folder, decide nothing.

    Attributes:
        path: Where it lies.
    """

    def __init__(self) -> None:
        _remove_left()
        self.path = Path(tempfile.mkdtemp(prefix=_PREFIX))
        self._lock = os.open(self.path / _LOCK, os.O_RDWR | os.O_CREAT)
        try_lock(self._lock)
        self._open = True

    def remove(self) -> None:
        """Remove it with all that lies in it; once is enough."""
        if self._open:
            self._open = False
            os.close(self._lock)
            # On Windows a file that is still mapped stays, until the next run.
            shutil.rmtree(self.path, ignore_errors=True)


@functools.cache
def _remove_left() -> None:
    """Remove the folders of processes that are no more."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        lock = folder / _LOCK
        # Someone else's, or gone meanwhile.
        with contextlib.suppress(OSError):
            if time.time() - lock.stat().st_mtime < _YOUNG:
                continue
            descriptor = os.open(lock, os.O_RDWR)
            try:
                left = try_lock(descriptor)
            finally:
                os.close(descriptor)
            if left:
                shutil.rmtree(folder, ignore_errors=True)
