"""A command of the user's that says of a model file whether it is in order."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from vlmpass.ir_tools.errors import PipelineError, VerifyError
from vlmpass.ir_tools.save import save
from vlmpass.ir_tools.save.commits import unwatched
from vlmpass.ir_tools.worker.folder import WorkFolder

__all__ = ["OutsideCheck", "outside_check"]

_HOLE = "{}"
_NOT_RUN = (126, 127)


@dataclass
class OutsideCheck:
    """Runs a command on models; one that it ends on with another code than 0 fails.

    Afterwards `told` says how it failed last where that counted, as in ``ends with code 1``.

    Args:
        command: As a shell would split it; ``{}`` is where the model's path goes.
        says: What the output must have in it, too, for a model to fail.
        seconds: How long the command may take. One that takes longer is ended, with all that it
            started, and fails, unless something must be said.

    Raises:
        PipelineError: It has no ``{}``, or there is no such program.
    """

    command: str
    says: str = ""
    seconds: float = 600.0

    def __post_init__(self) -> None:
        self.told = ""
        self._first: str | None = None
        try:
            self._words = shlex.split(self.command)
        except ValueError as error:
            raise PipelineError(f"--check cannot be read: {error}") from error
        if not any(_HOLE in word for word in self._words):
            raise PipelineError(
                "--check does not say where the model goes",
                remedy="write {} for it: --check 'python run.py {}'",
            )
        if shutil.which(self._words[0]) is None:
            raise PipelineError(f"--check: there is no program '{self._words[0]}'")

    def fails(self, model: ir.Model) -> bool:
        """Whether the command fails on a model, as it did on the first that it failed on.

        Raises:
            VerifyError: The command itself cannot be run.
        """
        folder = WorkFolder()
        try:
            path = folder.path / "model.onnx"
            with unwatched():
                save(model, path)
            return self._run(path)
        finally:
            folder.remove()

    def _run(self, path: Path) -> bool:
        words = [word.replace(_HOLE, str(path)) for word in self._words]
        try:
            code, text = _ended(words, self.seconds)
        except subprocess.TimeoutExpired:
            return not self.says and self._as_before(f"takes more than {self.seconds:g} s")
        except OSError as error:
            raise VerifyError(f"--check cannot be run: {error.strerror}") from error
        lines = text.strip().splitlines()
        last = f": {lines[-1]}" if lines else ""
        if code in _NOT_RUN:
            raise VerifyError(f"--check cannot be run{last or f': it ends with code {code}'}")
        if code == 0:
            return False
        return self.says in text and self._as_before(_how(code), last)

    def _as_before(self, how: str, more: str = "") -> bool:
        """Whether a failure is of the kind of the first one: another kind is another fault."""
        self._first = how if self._first is None else self._first
        counts = how == self._first
        self.told = how + more if counts else self.told
        return counts


def outside_check(command: str, seconds: float | None, says: str = "") -> OutsideCheck:
    """Return a check that takes the seconds that are given, if any are.

    Args:
        command: As for `OutsideCheck`.
        seconds: Likewise; None for as many as it takes by itself.
        says: Likewise.

    Raises:
        PipelineError: As `OutsideCheck`, or it has no time.
    """
    if seconds == 0:
        raise PipelineError("--check-time leaves the command no time", remedy="give seconds")
    return OutsideCheck(command, says) if seconds is None else OutsideCheck(command, says, seconds)


def _how(code: int) -> str:
    if code > 0:
        return f"ends with code {code}"
    try:
        return f"is ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"is ended by signal {-code}"


def _ended(words: list[str], seconds: float) -> tuple[int, str]:
    """Run a command to its end; return its exit code, negative for a signal, and what it said.

    Whatever it raises, as where it takes longer, nothing of it runs any more.
    """
    running = subprocess.Popen(
        words,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # what it starts is ended with it
    )
    try:
        said, _ = running.communicate(timeout=seconds)
    except BaseException:
        _end(running)
        raise
    return running.returncode, said.decode(errors="replace")


def _end(running: subprocess.Popen[bytes]) -> None:
    with suppress(OSError):
        if sys.platform == "win32":
            running.kill()
        else:
            os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    if running.stdout is not None:
        running.stdout.close()
