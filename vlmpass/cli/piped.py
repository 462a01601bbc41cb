"""`-` for a model: standard input or output, where one file is enough."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, BinaryIO, cast

from vlmpass.cli.console import deliver, say
from vlmpass.cli.failure import set_begun
from vlmpass.ir_tools.errors import ModelError, SaveError, VlmpassError
from vlmpass.ir_tools.save.commits import note_commit
from vlmpass.ir_tools.save.size import format_size

if TYPE_CHECKING:
    from vlmpass.ir_tools.save.layout import Layout, Weights
    from vlmpass.report import Report

__all__ = [
    "PIPED",
    "OutputPipe",
    "model_given",
    "models_given",
    "no_pipe",
    "path_given",
    "whole",
]

PIPED = Path("-")
"""What stands for standard input or output; a file of that name is ``./-``."""

_INPUT, _NAME = "standard input", "standard-input"
_SUFFIXES = {b"<": ".onnxtxt", b"{": ".json"}


def path_given(text: str) -> Path:
    """Return the path that is meant, `PIPED` for ``-`` alone: pathlib takes ``./-`` for it too."""
    path = Path(text)
    return path.absolute() if path == PIPED and str(text) != str(PIPED) else path


def no_pipe(path: Path | None, option: str) -> None:
    """Refuse ``-`` where more than one file, or a folder, is meant.

    Raises:
        SaveError: It is ``-``.
    """
    if path == PIPED:
        raise SaveError(f"{option} takes no '-'", remedy="name a file or folder, such as ./-")


@contextmanager
def model_given(path: Path) -> Iterator[Path]:
    """Give the file of a model: the one named, or one that holds what standard input had.

    Raises:
        ModelError: There is no such file, or nothing to read, or a model that has others beside it.
    """
    from vlmpass.ir_tools.system.paths import model_file

    if path != PIPED:
        yield model_file(path)
        return
    from vlmpass.ir_tools.worker.folder import WorkFolder

    folder = WorkFolder()
    try:
        file = _read(folder.path)
        try:
            model_file(file)
            _refuse_parts(file)
            yield file
        except VlmpassError as error:
            raise _renamed(error, str(file)) from error.__cause__
    finally:
        folder.remove()


@contextmanager
def models_given(*paths: Path) -> Iterator[list[Path]]:
    """Give the files of several models, of which standard input can be one.

    Raises:
        ModelError: As for one, or it is to be two of them.
    """
    if paths.count(PIPED) > 1:
        raise ModelError("standard input holds one model, not two", remedy="name the other's file")
    with ExitStack() as stack:
        yield [stack.enter_context(model_given(path)) for path in paths]


def _read(folder: Path) -> Path:
    """Write what standard input has into a file, whose suffix says the format."""
    stream: IO[str] | None = sys.stdin
    if stream is None:
        raise ModelError("standard input is closed", remedy="name the .onnx file")
    try:
        if stream.isatty():
            raise ModelError("standard input is a terminal", remedy="pipe a model into it")
        first = _bytes_of(stream).read(1)
        if not first:
            raise ModelError("standard input is empty", remedy="pipe a model into it")
        path = folder / (_NAME + _SUFFIXES.get(first, ".onnx"))
        with path.open("wb") as file:
            file.write(first)
            shutil.copyfileobj(_bytes_of(stream), file, 1 << 20)
    except (OSError, ValueError) as error:  # closed, or a full disk
        reason = error.strerror if isinstance(error, OSError) else error
        raise ModelError(f"{_INPUT} cannot be read: {reason}") from error
    return path


def _bytes_of(stream: IO[str]) -> BinaryIO:
    return cast("BinaryIO", getattr(stream, "buffer", stream))


def _refuse_parts(path: Path) -> None:
    """Refuse a model that has data in other files: where they are, nobody says."""
    import onnx
    from onnx.external_data_helper import uses_external_data

    from vlmpass.ir_tools.load.parse import parse_file

    for tensor in parse_file(path).proto.graph.initializer:
        if isinstance(tensor, onnx.TensorProto) and uses_external_data(tensor):
            raise ModelError(
                f"{_INPUT} has a model whose weights are in other files",
                remedy="name the file, so that they are found beside it",
            )


def _renamed(error: VlmpassError, path: str) -> VlmpassError:
    """Say of a file that nobody has named where it came from."""
    error.problem = error.problem.replace(path, _INPUT)
    error.remedy = error.remedy.replace(path, "-")
    error.context = tuple(line.replace(path, "-") for line in error.context)
    return error


class OutputPipe:
    """The file of a result that goes to standard output once it is whole.

    Raises:
        SaveError: Standard output is a terminal.
    """

    def __init__(self) -> None:
        from vlmpass.ir_tools.worker.folder import WorkFolder

        stream: IO[str] | None = sys.stdout
        if stream is not None and stream.isatty():
            raise SaveError(
                "standard output is a terminal, and a model is no text",
                remedy="send it to a file or a pipe, or name OUT",
            )
        self._folder = WorkFolder()
        self.path = self._folder.path / "model.onnx"

    def __enter__(self) -> OutputPipe:
        return self

    def __exit__(self, *raised: object) -> None:
        self._folder.remove()

    def send(self, report: Report, limit: int) -> None:
        """Copy the file to standard output, and show the report on standard error.

        Args:
            report: Of the conversion.
            limit: The most bytes that a file may have.

        Raises:
            SaveError: It is larger.
            StreamError: Standard output is closed, full or broken.
        """
        from vlmpass.screens.text import plain

        nbytes = self.path.stat().st_size
        if nbytes > limit:
            raise SaveError(
                f"the model takes {format_size(nbytes)}, more than the {format_size(limit)} that a"
                " file may have",
                remedy="name OUT, beside which data files go",
            )

        def put(stream: IO[str]) -> None:
            with self.path.open("rb") as file:
                shutil.copyfileobj(file, _bytes_of(stream), 1 << 20)

        set_begun(True)
        deliver(put)
        set_begun(False)
        note_commit("standard output")
        assert report.saved is not None
        files = tuple(replace(each, name=str(PIPED)) for each in report.saved.files)
        told = replace(report, saved=replace(report.saved, path=str(PIPED), files=files))
        say(plain(told))


def whole(layout: Layout, weights: Weights) -> Layout:
    """Return the layout of one file.

    Raises:
        SaveError: Another one was asked for, or files beside it are to be kept.
    """
    from vlmpass.ir_tools.save import Layout

    if layout not in (Layout.DEFAULT, Layout.INLINE) or weights == "keep":
        what = f"layout {layout.value}" if layout is not Layout.DEFAULT else "--weights keep"
        raise SaveError(
            f"standard output is one file, and {what} has data files beside it", remedy="name OUT"
        )
    return Layout.INLINE
