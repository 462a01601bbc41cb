"""The two streams: results go to standard output, everything else to standard error."""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING, cast

from vlmpass.ir_tools.errors import VlmpassError
from vlmpass.screens.characters import encodable, printable

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.progress import Progress

__all__ = [
    "Status",
    "StreamError",
    "deliver",
    "encoding_of",
    "say",
    "show",
    "show_json",
    "status",
    "write",
]

_WIDTH = 100
_NARROWEST = 20


class StreamError(VlmpassError):
    """Standard output does not take a result."""


class _Encodable:
    """A stream that is handed nothing that it cannot encode; what it cannot take, if allowed."""

    def __init__(self, stream: IO[str], *, may_fail: bool) -> None:
        self._stream = stream
        self._failures = (OSError, ValueError) if may_fail else ()

    def write(self, text: str) -> int:
        with suppress(*self._failures):
            self._stream.write(encodable(text, encoding_of(self._stream)))
        return len(text)

    def flush(self) -> None:
        with suppress(*self._failures):
            self._stream.flush()

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)


def encoding_of(stream: IO[str] | None) -> str:
    """Return what a stream encodes in; UTF-8 for one in memory, or none."""
    return getattr(stream, "encoding", None) or "utf-8"


def _console(stream: IO[str], *, may_fail: bool = False) -> Console:
    from rich.console import Console

    file = cast("IO[str]", _Encodable(stream, may_fail=may_fail))
    return Console(file=file, width=_width(stream), highlight=False, soft_wrap=False)


def _width(stream: IO[str]) -> int:
    """Return the columns of a terminal; a pipe has as many as COLUMNS says, or 100.

    The width of the window would make what is piped depend on it.
    """
    if stream.isatty():
        return max(_NARROWEST, shutil.get_terminal_size((_WIDTH, 25)).columns)
    said = os.environ.get("COLUMNS", "")
    return max(_NARROWEST, min(int(said), 10_000)) if said.isdecimal() else _WIDTH


def _silence(stream: IO[str]) -> None:
    """Let nothing more come of a stream that failed, also when Python flushes it at its end."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def deliver(put: Callable[[IO[str]], object]) -> None:
    """Hand a result to standard output and see it through; a reader that has gone is no fault.

    Raises:
        StreamError: It is closed, full or broken.
    """
    stream: IO[str] | None = sys.stdout
    if stream is None:
        raise _undelivered("standard output is closed")
    try:
        put(stream)
        stream.flush()
    except BrokenPipeError:
        _silence(stream)
    except (OSError, ValueError) as error:
        _silence(stream)
        reason = error.strerror if isinstance(error, OSError) else error
        raise _undelivered(f"standard output does not take the result: {reason}") from error


def _undelivered(problem: str) -> StreamError:
    return StreamError(problem, remedy="send it to a file or a pipe that takes it")


def write(text: str) -> None:
    """Write a text to standard output as it is."""
    deliver(lambda stream: stream.write(encodable(text, encoding_of(stream))))


def show(renderable: RenderableType) -> None:
    """Print a result: for people on a terminal, plain where it is piped."""
    from vlmpass.screens.text import fitted_screen, plain

    stream: IO[str] | None = sys.stdout
    screen = fitted_screen(renderable)
    if stream is not None and stream.isatty():
        deliver(lambda stream: _console(stream).print(screen))
    else:
        write(plain(screen, _WIDTH if stream is None else _width(stream)) + "\n")


def show_json(data: object) -> None:
    """Print a result as JSON; numbers that JSON has not are strings."""
    try:
        text = json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False)
    except ValueError:
        text = json.dumps(_finite(data), indent=2, ensure_ascii=False, allow_nan=False)
    try:
        text.encode(encoding_of(sys.stdout))
    except (UnicodeEncodeError, LookupError):
        text = json.dumps(json.loads(text), indent=2)
    write(text + "\n")


def _finite(data: object) -> object:
    if isinstance(data, dict):
        return {key: _finite(value) for key, value in data.items()}
    if isinstance(data, list):
        return [_finite(value) for value in data]
    return str(data) if isinstance(data, float) and not math.isfinite(data) else data


def say(text: str) -> None:
    """Print a line to standard error, if there is one that takes it."""
    stream: IO[str] | None = sys.stderr
    if stream is None:
        return
    try:
        stream.write(encodable(printable(text.rstrip("\n")), encoding_of(stream)) + "\n")
        stream.flush()
    except (OSError, ValueError):
        _silence(stream)


class Status:
    """Shows what is going on; this one shows nothing, because nobody is looking."""

    def stage(self, text: str) -> None:
        """Say what is being done now."""

    def bytes(self, done: int, total: int) -> None:
        """Say how many bytes are written, of how many."""

    def segments(self, done: int, total: int) -> None:
        """Say how many segments of a model have run, of how many."""


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

    def segments(self, done: int, total: int) -> None:
        amount = f"segment {done} of {total}"
        self._progress.update(
            self._task, description="running", completed=done, total=total, amount=amount
        )


@contextmanager
def status() -> Iterator[Status]:
    """Show a status line on standard error while that is a terminal."""
    stream: IO[str] | None = sys.stderr
    if stream is None or not stream.isatty():
        yield Status()
        return
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[amount]}"),
    )
    console = _console(stream, may_fail=True)
    with Progress(*columns, console=console, transient=True) as progress:
        yield _Bar(progress)
