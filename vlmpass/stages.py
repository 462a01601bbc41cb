"""What a run does around its passes, and how long each of that takes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from vlmpass.ir_tools.system.memory import peak_rss

__all__ = ["Stage", "Stages"]


@dataclass(frozen=True)
class Stage:
    """One thing done outside the passes.

    Attributes:
        name: Such as ``load`` or ``check``.
        seconds: Wall time, without that of the stages and passes within.
        cpu_seconds: Processor time of this process, likewise.
        peak_rss: The most bytes of physical memory the process had held when it ended.
    """

    name: str
    seconds: float
    cpu_seconds: float
    peak_rss: int


class Stages:
    """Takes the time of stages, each without those within it; one of a name done twice is one."""

    def __init__(self) -> None:
        self._found: dict[str, Stage] = {}
        self._inner = [(0.0, 0.0)]

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Take the time of what is done within."""
        wall, cpu = time.perf_counter(), time.process_time()
        self._inner.append((0.0, 0.0))
        try:
            yield
        finally:
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            own = self._inner.pop()
            outer = self._inner.pop()
            self._inner.append((outer[0] + wall, outer[1] + cpu))
            before = self._found.get(name, Stage(name, 0.0, 0.0, 0))
            self._found[name] = Stage(
                name,
                before.seconds + wall - own[0],
                before.cpu_seconds + cpu - own[1],
                peak_rss(),
            )

    def all(self) -> tuple[Stage, ...]:
        """Return every stage, in the order in which they ended first."""
        return tuple(self._found.values())
