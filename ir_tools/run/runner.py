"""A model ready to run, in a process of its own."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, TypeVar

import onnx_ir as ir

from vlmpass.ir_tools.errors import VerifyError
from vlmpass.ir_tools.run.stage import stage
from vlmpass.ir_tools.worker.transport import Array, Feed, pack, unpack

__all__ = ["OPTIMIZATIONS", "AnyRunner", "Backend", "Optimization", "RunError", "Runner"]

Backend = Literal["onnxruntime", "reference"]
Optimization = Literal["none", "basic", "extended", "all"]
OPTIMIZATIONS: tuple[Optimization, ...] = ("none", "basic", "extended", "all")

_REFERENCE_LIMIT = 1_000_000_000
_LIMITS = ("NOT_IMPLEMENTED", "till opset", "Unsupported model IR version")
_NAMES = {"onnxruntime": "ONNX Runtime", "reference": "the reference evaluator"}


class RunError(VerifyError):
    """A runtime would not load or run a model, or died on it.

    Args:
        stage: ``load``, ``run`` or ``crash``.
        backend: Which runtime.
        reason: What it said.
    """

    def __init__(self, stage: str, backend: Backend, reason: str) -> None:
        verb = {"load": "does not load", "run": "does not run", "crash": "crashed on"}[stage]
        super().__init__(f"{_NAMES[backend]} {verb} the model: {reason}")
        self.stage = stage
        self.backend = backend
        self.reason = reason

    @property
    def is_limit(self) -> bool:
        """Whether the runtime lacks a kernel or a version, rather than the model being wrong."""
        return any(text in self.reason for text in _LIMITS)


_Self = TypeVar("_Self", bound="AnyRunner")


class AnyRunner(ABC):
    """What runs a model, whole or piece by piece; leaving its context closes it."""

    @abstractmethod
    def run(self, inputs: Mapping[str, Array | Sequence[Array] | None]) -> Feed:
        """Return the outputs by name; they stay readable until the end of the context."""

    @abstractmethod
    def stop(self) -> None:
        """Let go of processes and memory; what `run` returned stays readable."""

    @abstractmethod
    def close(self) -> None:
        """Let go of everything, what `run` returned included."""

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class Runner(AnyRunner):
    """Runs a model on the CPU, in a child process that loads it once.

    ONNX Runtime gets a file's path, never bytes, and maps its weights; an `ir.Model` is staged as a
    small file whose weights stay where they lie. Use it as a context manager.

    Args:
        source: A path, or a model whose external weights are `StoredWeight`.
        backend: ``onnxruntime``, or ``reference`` for onnx's own evaluator, which is slow, exact to
            the letter of the standard and keeps the weights in memory.
        optimization: ONNX Runtime's graph optimisation level.
        reuse_memory: Whether intermediate results share memory. ONNX Runtime plans that in time
            quadratic in the nodes: a minute at 15 000.

    Raises:
        VerifyError: If onnxruntime is asked for and not installed, or the model is too large for
            the evaluator.
        RunError: If the runtime refuses the model or dies on it.
    """

    def __init__(
        self,
        source: str | os.PathLike[str] | ir.Model,
        *,
        backend: Backend = "onnxruntime",
        optimization: Optimization = "basic",
        reuse_memory: bool = True,
    ) -> None:
        if backend == "onnxruntime":
            require_onnxruntime()
        self.backend = backend
        self.peak_rss = 0
        self._folder = tempfile.TemporaryDirectory(
            prefix="vlmpass-run-", ignore_cleanup_errors=True
        )
        self._runs = 0
        self._process: subprocess.Popen[str] | None = None
        try:
            folder = Path(self._folder.name)
            files: dict[str, str] = {}
            if isinstance(source, ir.Model):
                limit = _REFERENCE_LIMIT if backend == "reference" else None
                path, files = stage(source, folder, inline_limit=limit)
            else:
                path = os.fspath(source)
            self._log = (folder / "stderr").open("w+b")
            self._start()
            request = {"do": "open", "model": path, "files": files, "backend": backend}
            options = {"optimization": optimization, "reuse_memory": reuse_memory}
            self._ask("load", {**request, **options})
        except BaseException:
            self.close()
            raise

    def run(self, inputs: Mapping[str, Array | Sequence[Array] | None]) -> Feed:
        """Return the outputs by name.

        Args:
            inputs: Arrays by input name; a list for a sequence, None for an absent optional.

        Returns:
            Read-only maps of a temporary file that lives as long as the runner.

        Raises:
            RunError: If the runtime refuses these inputs or dies on them.
        """
        folder = Path(self._folder.name)
        fed, made = folder / "inputs", folder / f"outputs.{self._runs}"
        self._runs += 1
        request = {"do": "run", "inputs": str(fed), "outputs": str(made)}
        answer = self._ask("run", {**request, "manifest": pack(inputs, fed)})
        self.peak_rss = answer["peak_rss"]
        return unpack(answer["manifest"], made)

    def stop(self) -> None:
        """End the process; what `run` returned stays readable."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None
            self._log.close()

    def close(self) -> None:
        """End the process and remove the temporary files, the outputs among them."""
        self.stop()
        self._folder.cleanup()

    def _start(self) -> None:
        # The child finds modules exactly where this process does.
        program = (
            f"import sys; sys.path[:] = {sys.path!r};"
            " from vlmpass.ir_tools.worker.serve import main; main()"
        )
        self._process = subprocess.Popen(
            [sys.executable, "-c", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            encoding="utf-8",
        )

    def _ask(self, stage: str, request: Mapping[str, object]) -> dict[str, Any]:
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise RunError("crash", self.backend, self._epitaph(process))
        answer: dict[str, Any] = json.loads(line)
        if not answer["ok"]:
            raise RunError(stage, self.backend, _first_line(answer["error"]))
        return answer

    def _epitaph(self, process: subprocess.Popen[str]) -> str:
        code = process.wait()
        self._log.seek(0)
        last = self._log.read().decode(errors="replace").strip().splitlines()[-1:]
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        return " ".join([f"it ended with {how}", *last])


def _first_line(text: str) -> str:
    """Return the first line of a runtime's message without its address: codes and file names."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    line = lines[0] if lines else "no reason given"
    return re.sub(r"^.*? : \d+ : (\w+) : (Load model from .*? failed:)?", r"\1: ", line)


def require_onnxruntime() -> None:
    """Raise a VerifyError that says how to install ONNX Runtime, if it is not."""
    if importlib.util.find_spec("onnxruntime") is None:
        raise VerifyError(
            "ONNX Runtime is not installed", remedy='install it: pip install "vlmpass[runtime]"'
        )
