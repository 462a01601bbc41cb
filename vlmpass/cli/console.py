"""The two streams: results go to standard output, everything else to standard error."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

__all__ = ["progress_bar", "say", "show", "show_json"]

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


@contextmanager
def progress_bar(description: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar with bytes and rate on standard error while that is a terminal.

    Yields:
        What takes bytes done and bytes in all.
    """
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich import progress as bars

    columns = (
        bars.TextColumn("{task.description}"),
        bars.BarColumn(),
        bars.DownloadColumn(),
        bars.TransferSpeedColumn(),
        bars.TimeRemainingColumn(),
    )
    with bars.Progress(*columns, console=_console(sys.stderr), transient=True) as progress:
        task = progress.add_task(description, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
