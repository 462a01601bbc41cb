"""A model ready to run, in a process of its own."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, TypeVar

import onnx_ir as ir

from vlmpass.ir_tools.errors import VerifyError
from vlmpass.ir_tools.graph.walk import weight_bytes
from vlmpass.ir_tools.load import load
from vlmpass.ir_tools.run.addition import NOTHING, Addition
from vlmpass.ir_tools.run.allowance import UNBOUNDED, Allowance
from vlmpass.ir_tools.run.materialize import Staged, stage
from vlmpass.ir_tools.run.words import said as said_by
from vlmpass.ir_tools.save.references import data_files_of
from vlmpass.ir_tools.system.runtime import (
    RUNTIME_NAMES,
    Optimization,
    Runtime,
    require_runtime,
)
from vlmpass.ir_tools.worker.child import Child, Died
from vlmpass.ir_tools.worker.folder import WorkFolder
from vlmpass.ir_tools.worker.transport import Array, Feed, pack, unpack

__all__ = [
    "NAMES",
    "AnyRunner",
    "Backend",
    "Engine",
    "RunError",
    "Runner",
    "opening",
    "run_error",
    "tried_each",
]

Backend = Literal[Runtime, "reference"]
Engine = Literal[Runtime, "reference", "pytorch"]
"""Whose errors there are: `Backend`, and PyTorch, which runs modules and no models."""

_INLINE_LIMIT = 1_000_000_000
"""Bytes of weights up to which what holds them in memory is given a model."""
_LIMITS = ("NOT_IMPLEMENTED", "till opset", "Unsupported model IR version")
NAMES: Mapping[str, str] = {
    **RUNTIME_NAMES,
    "reference": "the reference evaluator",
    "pytorch": "PyTorch",
}


_VERBS = {
    "load": "does not load the model",
    "run": "does not run the model",
    "crash": "crashed on the model",
    "memory": "was stopped on the model",
    "time": "was stopped on the model",
}

_REMEDIES = {
    "memory": "--memory allows more, such as --memory 16GB",
    "time": "--verify-time allows more, in seconds",
}


class RunError(VerifyError):
    """A runtime would not load or run a model, died on it, or took more than it may.

    Args:
        stage: ``load``, ``run``, ``crash``, ``memory`` or ``time``.
        backend: Which runtime.
        reason: What it said.
    """

    def __init__(self, stage: str, backend: Engine, reason: str) -> None:
        remedy = _REMEDIES.get(stage, "")
        super().__init__(f"{NAMES[backend]} {_VERBS[stage]}: {reason}", remedy=remedy)
        self.stage = stage
        self.backend = backend
        self.reason = reason

    @property
    def is_limit(self) -> bool:
        """Whether the runtime lacks a kernel or a version, rather than the model being wrong."""
        return any(text in self.reason for text in _LIMITS)

    @property
    def code(self) -> str:
        """ONNX Runtime's word for the kind of error, such as ``NOT_IMPLEMENTED``."""
        return self.reason.partition(":")[0].strip()

    @property
    def is_stop(self) -> bool:
        """Whether it was stopped, which says nothing about the model."""
        return self.stage in ("memory", "time")


_Self = TypeVar("_Self", bound="AnyRunner")
_Given = TypeVar("_Given", bound="Mapping[str, Array | Sequence[Array] | None]")


def tried_each(run: Callable[[_Given], Feed], feeds: Sequence[_Given]) -> Iterator[Feed | RunError]:
    """Yield what something gives for each set of inputs, or why it refused the set.

    Raises:
        RunError: It fails in another way.
    """
    for feed in feeds:
        try:
            yield run(feed)
        except RunError as error:
            if error.stage not in ("run", "memory"):
                raise
            yield error


class AnyRunner(ABC):
    """What runs a model, whole or piece by piece; leaving its context closes it."""

    @abstractmethod
    def run(self, inputs: Mapping[str, Array | Sequence[Array] | None]) -> Feed:
        """Return the outputs by name; they stay readable until the end of the context."""

    def run_each(
        self, feeds: Sequence[Mapping[str, Array | Sequence[Array] | None]]
    ) -> Iterator[Feed]:
        """Yield the outputs for each set of inputs."""
        return map(self.run, feeds)

    def try_each(
        self, feeds: Sequence[Mapping[str, Array | Sequence[Array] | None]]
    ) -> Iterator[Feed | RunError]:
        """Yield the outputs for each set of inputs, or why it was refused.

        Raises:
            RunError: It fails in another way.
        """
        return tried_each(self.run, feeds)

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
        backend: One of `RUNTIMES`, or ``reference`` for onnx's own evaluator, which is slow, exact
            to the letter of the standard and keeps the weights in memory.
        optimization: ONNX Runtime's graph optimisation level.
        prepack: Whether ONNX Runtime may lay weights out anew for speed, in memory of its own.
        more: What the graph of an `ir.Model` computes besides.
        allowance: What loading and running it may take.

    Raises:
        VerifyError: If a runtime is asked for and not installed, or the model is too large for the
            evaluator.
        RunError: If the runtime refuses the model or dies on it.
    """

    def __init__(
        self,
        source: str | os.PathLike[str] | ir.Model,
        *,
        backend: Backend = "onnxruntime",
        optimization: Optimization = "basic",
        prepack: bool = True,
        more: Addition = NOTHING,
        allowance: Allowance = UNBOUNDED,
    ) -> None:
        if backend != "reference":
            require_runtime(backend)
        self.backend = backend
        self.peak_rss = 0
        self._allowance = allowance
        self._folder = WorkFolder()
        self._runs = 0
        self._child: Child | None = None
        try:
            asked = self._opening(source, optimization, prepack, more)
            self._child = Child(self._folder.path / "stderr", backend)
            self._ask("load", asked)
        except BaseException:
            self.close()
            raise

    def _opening(
        self,
        source: str | os.PathLike[str] | ir.Model,
        optimization: Optimization,
        prepack: bool,
        more: Addition,
    ) -> dict[str, object]:
        """Return what the process is asked first."""
        staged, memory = self._stage(source, more), self._allowance.memory
        asked = opening(staged, self.backend, optimization, prepack=prepack, memory=memory)
        asked["outputs"] = _outputs(source) if self.backend in ("openvino", "iree") else []
        return asked

    def _stage(self, source: str | os.PathLike[str] | ir.Model, more: Addition) -> Staged:
        if isinstance(source, ir.Model):
            limit = _INLINE_LIMIT if self.backend in ("reference", "iree") else None
            return stage(source, self._folder.path, inline_limit=limit, more=more)
        bounded = self._allowance.memory is not None
        path = os.fspath(source)
        files = _beside(Path(path)) if self.backend == "ort-web-wasm" else {}
        return Staged(path, files, weight_bytes(load(source)) if bounded else 0)

    def run(self, inputs: Mapping[str, Array | Sequence[Array] | None]) -> Feed:
        """Return the outputs by name.

        Args:
            inputs: Arrays by input name; a list for a sequence, None for an absent optional.

        Returns:
            Read-only maps of a temporary file that lives as long as the runner.

        Raises:
            RunError: If the runtime refuses these inputs or dies on them.
        """
        folder = self._folder.path
        fed, made = folder / "inputs", folder / f"outputs.{self._runs}"
        self._runs += 1
        request = {"do": "run", "inputs": str(fed), "outputs": str(made)}
        answer = self._ask("run", {**request, "manifest": pack(inputs, fed)})
        self.peak_rss = answer["peak_rss"]
        return unpack(answer["manifest"], made)

    def stop(self) -> None:
        """End the process; what `run` returned stays readable."""
        if self._child is not None:
            self._child.kill()
            self._child = None

    def close(self) -> None:
        """End the process and remove the temporary files, the outputs among them."""
        self.stop()
        self._folder.remove()

    def _ask(self, stage: str, request: Mapping[str, object]) -> dict[str, Any]:
        assert self._child is not None
        try:
            answer = self._child.ask(request, self._allowance.seconds())
        except Died as error:
            raise run_error(stage, self.backend, error, self._allowance.memory) from None
        if not answer["ok"]:
            raise run_error(stage, self.backend, answer, self._allowance.memory)
        return answer


def _beside(path: Path) -> dict[str, str]:
    """Return the data files of a model by its names for them: JavaScript is lent all."""
    folder = Path(os.path.abspath(path.parent))
    found = sorted(each for each in data_files_of(path) if each.is_file())
    return {Path(os.path.relpath(each, folder)).as_posix(): str(each) for each in found}


def _outputs(source: str | os.PathLike[str] | ir.Model) -> list[str]:
    model = source if isinstance(source, ir.Model) else load(source)
    return [str(value.name) for value in model.graph.outputs]


def opening(
    staged: Staged,
    backend: Backend,
    optimization: Optimization,
    *,
    prepack: bool = True,
    memory: int | None = None,
    threads: int = 0,
) -> dict[str, object]:
    """Return what a process that runs models is asked first.

    Args:
        staged: The model as a file.
        backend, optimization, prepack: See `Runner`.
        memory: Bytes that it may take beside the weights; None for no bound.
        threads: How many ONNX Runtime computes an operator with; 0 for as many as it likes.
    """
    return {
        "do": "open",
        "model": staged.path,
        "files": staged.files,
        "largest": staged.largest,
        "backend": backend,
        "optimization": optimization,
        "prepack": prepack,
        "fold": None,
        "threads": threads,
        # Maps of data files count as memory although nothing is held of them.
        "memory": None if memory is None else memory + staged.nbytes,
    }


def run_error(
    stage: str, backend: Backend, said: Died | Mapping[str, Any], memory: int | None
) -> RunError:
    """Return the error for a child that refused or died.

    Args:
        stage: ``load`` or ``run``.
        backend: Which runtime.
        said: The child's answer, or its end.
        memory: Bytes that it was allowed; None for no bound.
    """
    memory_is_out = said.memory if isinstance(said, Died) else said["memory"]
    if isinstance(said, Died) and said.late:
        return RunError("time", backend, "it takes longer than it may")
    if memory is not None and memory_is_out:
        more = f"it needs more than {memory / 1e9:.1f} GB beside its weights"
        return RunError("memory", backend, more)
    if isinstance(said, Died):
        return RunError("crash", backend, said.how)
    return RunError(stage, backend, said_by(said["error"]))
