"""Reading ranges of files through a few pooled descriptors, never through a mapping.

A file is remembered by size and modification time, so that data that changed under a model is
refused instead of read.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import FileIO
from threading import Lock
from typing import NamedTuple

from vlmpass.ir_tools.errors import ModelError

__all__ = ["POOL", "FilePool", "Runs", "Stamp", "release_files"]


class Stamp(NamedTuple):
    """What tells one state of a file from another."""

    size: int
    mtime_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> Stamp:
        """Take the stamp of a file from its status."""
        return cls(status.st_size, status.st_mtime_ns)


class Runs(NamedTuple):
    """Ranges of a file of equal length at equal distance, in bytes."""

    offset: int
    length: int
    distance: int = 0


@dataclass
class _Handle:
    file: FileIO
    users: int = 0
    lock: Lock = field(default_factory=Lock)

    def read_into(self, offset: int, buffer: memoryview) -> int:
        if hasattr(os, "preadv"):
            return os.preadv(self.file.fileno(), [buffer], offset)
        with self.lock:
            self.file.seek(offset)
            return self.file.readinto(buffer) or 0


class FilePool:
    """Open files by path, at most `limit` of them idle or in use, shared by all threads.

    Args:
        limit: Descriptors to keep; more are open only while more threads read at once.
    """

    def __init__(self, limit: int = 32) -> None:
        self._limit = limit
        self._lock = Lock()
        self._handles: OrderedDict[tuple[str, Stamp], _Handle] = OrderedDict()

    def __len__(self) -> int:
        return len(self._handles)

    def read_into(self, path: str, stamp: Stamp, runs: Runs, buffer: memoryview) -> None:
        """Fill a buffer from a file.

        Args:
            path: Of the file.
            stamp: The state it must be in.
            runs: What to read.
            buffer: Writable bytes, a multiple of `runs.length`.

        Raises:
            ModelError: The file is gone, has changed, is too short or cannot be read.
        """
        offset, length, distance = runs
        with self._borrow(path, stamp) as handle:
            try:
                for start in range(0, len(buffer), length):
                    run = buffer[start : start + length]
                    while count := handle.read_into(offset, run):
                        if count == len(run):
                            break
                        run, offset = run[count:], offset + count
                    else:
                        raise _changed(path)
                    offset += distance - length + len(run)
            except OSError as error:
                raise ModelError(f"{path} cannot be read: {error.strerror}") from error

    @contextmanager
    def _borrow(self, path: str, stamp: Stamp) -> Iterator[_Handle]:
        """Lend an open file that is in the given state, and keep it open afterwards."""
        key = (path, stamp)
        with self._lock:
            handle = self._handles.get(key)
            if handle is None:
                self._close_idle(self._limit - 1)
                handle = self._handles[key] = _Handle(_open(path))
            self._handles.move_to_end(key)
            handle.users += 1
        try:
            if Stamp.of(os.fstat(handle.file.fileno())) != stamp:
                self._forget(key)
                raise _changed(path)
            yield handle
        finally:
            with self._lock:
                handle.users -= 1
                if handle.users == 0 and self._handles.get(key) is not handle:
                    handle.file.close()

    def release(self) -> None:
        """Close every file nobody is reading, as Windows wants before one is replaced."""
        with self._lock:
            self._close_idle(0)

    def _forget(self, key: tuple[str, Stamp]) -> None:
        with self._lock:
            self._handles.pop(key, None)

    def _close_idle(self, keep: int) -> None:
        idle = [key for key, handle in self._handles.items() if handle.users == 0]
        for key in idle[: max(0, len(self._handles) - keep)]:
            self._handles.pop(key).file.close()

    def reset_after_fork(self) -> None:
        """Start anew in a child process: a lock may have been held when it was forked."""
        self._lock = Lock()
        self._handles = OrderedDict()


def _open(path: str) -> FileIO:
    try:
        return FileIO(path, "rb")
    except FileNotFoundError as error:
        raise ModelError(
            f"{path} has gone since the model was loaded", remedy="put it back or load anew"
        ) from error
    except OSError as error:
        raise ModelError(f"{path} cannot be opened: {error.strerror}") from error


def _changed(path: str) -> ModelError:
    return ModelError(f"{path} has changed since the model was loaded", remedy="load it anew")


POOL = FilePool()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=POOL.reset_after_fork)


def release_files() -> None:
    """Close every data file that is open but not being read; the next read opens it again."""
    POOL.release()
