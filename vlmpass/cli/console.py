"""The two streams: results go to standard output, everything else to standard error."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.progress import Progress

__all__ = ["Status", "say", "show", "show_json", "status"]

_WIDTH = 100


def _console(file: IO[str]) -> Console:
    from rich.console import Console

    # A pipe has no width; the width of the screen would make output depend on the window.
    width = shutil.get_terminal_size((_WIDTH, 25)).columns if file.isatty() else _WIDTH
    return Console(file=file, width=width, highlight=False, soft_wrap=False)


def show(renderable: RenderableType) -> None:
    """Print a result: for people on a terminal, plain where it is piped."""
    if sys.stdout.isatty():
        _console(sys.stdout).print(renderable)
        return
    from vlmpass.screens.text import plain

    sys.stdout.write(plain(renderable) + "\n")


def show_json(data: object) -> None:
    """Print a result as JSON."""
    sys.stdout.write(json.dumps(data, indent=2, ensure_ascii=False) + "\n")


def say(text: str) -> None:
    """Print a line to standard error."""
    sys.stderr.write(text.rstrip("\n") + "\n")


class Status:
    """Shows what is going on; this one shows nothing, because nobody is looking."""

    def stage(self, text: str) -> None:
        """Say what is being done now."""

    def bytes(self, done: int, total: int) -> None:
        """Say how many bytes are written, of how many."""


class _Bar(Status):
    """A line at the bottom of the terminal: what is being done, a bar, bytes and rate."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("opening", total=None, amount="")

    def stage(self, text: str) -> None:
        self._progress.update(self._task, description=text, amount="")

    def bytes(self, done: int, total: int) -> None:
        from vlmpass.screens.text import size

        self._progress.update(self._task, completed=done, total=total)
        speed = self._progress.tasks[0].speed
        rate = f", {size(round(speed))}/s" if speed else ""
        self._progress.update(
            self._task, description="writing", amount=f"{size(done)} of {size(total)}{rate}"
        )
        if done == total:
            self.stage("checking")


@contextmanager
def status() -> Iterator[Status]:
    """Show a status line on standard error while that is a terminal."""
    if not sys.stderr.isatty():
        yield Status()
        return
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[amount]}"),
    )
    with Progress(*columns, console=_console(sys.stderr), transient=True) as progress:
        yield _Bar(progress)
