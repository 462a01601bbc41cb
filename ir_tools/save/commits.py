"""Which outputs are in place: whoever reports a failure says what stands all the same."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["note_commit", "unwatched", "watch_commits"]

_WATCHERS: list[list[str]] = []


def note_commit(path: str | os.PathLike[str]) -> None:
    """Tell everyone who watches that a model file and all its data are in place."""
    for paths in _WATCHERS:
        if os.fspath(path) not in paths:
            paths.append(os.fspath(path))


@contextmanager
def watch_commits() -> Iterator[list[str]]:
    """Give a list that grows by the path of each model file that this process puts in place."""
    paths: list[str] = []
    _WATCHERS.append(paths)
    try:
        yield paths
    finally:
        _WATCHERS[:] = [each for each in _WATCHERS if each is not paths]


@contextmanager
def unwatched() -> Iterator[None]:
    """Tell nobody of what is put in place meanwhile, because it does not stay there."""
    watching = _WATCHERS[:]
    _WATCHERS.clear()
    try:
        yield
    finally:
        _WATCHERS[:] = watching
