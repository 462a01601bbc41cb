"""A command of the user's that says of a model file whether it is in order."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from vlmpass.ir_tools.errors import PipelineError, VerifyError
from vlmpass.ir_tools.save import save
from vlmpass.ir_tools.save.commits import unwatched
from vlmpass.ir_tools.worker.folder import WorkFolder

__all__ = ["OutsideCheck"]

_HOLE = "{}"
_NOT_RUN = (126, 127)


@dataclass
class OutsideCheck:
    """Runs a command on models; one that it ends on with another code than 0 fails.

    Args:
        command: As a shell would split it; ``{}`` is where the model's path goes.
        says: What the output must have in it, too, for a model to fail.
        seconds: How long the command may take. One that takes longer fails, unless something must
            be said.

    Raises:
        PipelineError: It has no ``{}``, or there is no such program.
    """

    command: str
    says: str = ""
    seconds: float = 600.0

    def __post_init__(self) -> None:
        self._code: int | None = None
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
            done = subprocess.run(
                words,
                capture_output=True,
                timeout=self.seconds,
                check=False,
                stdin=subprocess.DEVNULL,
            )
        except subprocess.TimeoutExpired:
            return not self.says and self._as_before(-1)
        except OSError as error:
            raise VerifyError(f"--check cannot be run: {error.strerror}") from error
        if done.returncode in _NOT_RUN:
            told = done.stderr.decode(errors="replace").strip().splitlines()
            raise VerifyError(f"--check cannot be run: {told[-1] if told else done.returncode}")
        if done.returncode == 0:
            return False
        text = (done.stdout + done.stderr).decode(errors="replace")
        return self.says in text and self._as_before(done.returncode)

    def _as_before(self, code: int) -> bool:
        """Whether an exit code is that of the first failure: another one is another fault."""
        self._code = code if self._code is None else self._code
        return code == self._code
