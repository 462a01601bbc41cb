"""Segments run by an executor of the caller: in other processes, or on machines that share folders.

A task is the path of a small model, where its weights lie, and files for what goes in and comes
out: it travels as that, and no weight or activation does. It may be done twice, for each time it
writes files of its own; what a worker that died left undone is done once more.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir

from vlmpass.ir_tools.run.addition import NOTHING, Addition
from vlmpass.ir_tools.run.allowance import Allowance
from vlmpass.ir_tools.run.materialize import stage
from vlmpass.ir_tools.run.runner import opening, run_error
from vlmpass.ir_tools.system.runtime import Optimization
from vlmpass.ir_tools.worker.child import Child, Died
from vlmpass.ir_tools.worker.folder import WorkFolder
from vlmpass.ir_tools.worker.transport import Array, Feed, pack, unpack

__all__ = ["LentRunner", "Task", "perform"]

_MOST_TASKS = 16
"""In which the runs of one segment are done; each loads the segment anew."""
_Answers = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Task:
    """A model to open, and the runs of it.

    Attributes:
        opening: What the runtime's process is asked first.
        runs: What it is asked then, without names of the files for the outputs.
        folder: Where these files go.
        seconds: How long it may take; None for no bound.
    """

    opening: Mapping[str, object]
    runs: Sequence[Mapping[str, object]]
    folder: str
    seconds: float | None


def perform(task: Task) -> _Answers:
    """Do one task, wherever this runs.

    Returns:
        What the runtime's process answered, up to the first that is no success, with the file of
        the outputs; or how it ended.
    """
    until = None if task.seconds is None else time.monotonic() + task.seconds
    own = f"{task.folder}/{secrets.token_hex(8)}"  # who did it before may still be writing
    child = Child(Path(f"{own}.stderr"))
    answers: list[Mapping[str, Any]] = []
    try:
        for number, request in enumerate((task.opening, *task.runs)):
            left = None if until is None else until - time.monotonic()
            outputs = f"{own}.{number}"
            answers.append({**child.ask({**request, "outputs": outputs}, left), "outputs": outputs})
            if not answers[-1]["ok"]:
                break
    except Died as error:
        answers.append({"ok": False, "died": (error.how, error.late, error.memory)})
    finally:
        child.kill()
    return answers


class LentRunner:
    """Runs a segment through an executor, on ONNX Runtime.

    Args:
        model: The segment.
        executor: Of any kind; its workers have the temporary folder and that of the weights under
            the same paths.
        optimization: ONNX Runtime's graph optimisation level.
        allowance: What loading and running it may take.
        more: What its graph computes besides.
    """

    def __init__(
        self,
        model: ir.Model,
        executor: Executor,
        optimization: Optimization,
        allowance: Allowance,
        more: Addition = NOTHING,
    ) -> None:
        self.peak_rss = 0
        self._executor = executor
        self._allowance = allowance
        self._folder = WorkFolder()
        try:
            staged = stage(model, self._folder.path, more=more)
        except BaseException:
            self.close()
            raise
        self._opening = opening(
            staged, "onnxruntime", optimization, prepack=False, memory=allowance.memory
        )

    def run_each(
        self, feeds: Sequence[Mapping[str, Array | Sequence[Array] | None]]
    ) -> Iterator[Feed]:
        """Yield the outputs for each set of inputs, run side by side.

        Raises:
            RunError: The runtime refuses the segment or an input, or dies on it.
        """
        found: dict[int, Feed] = {}
        shares = [range(len(feeds))[start::_MOST_TASKS] for start in range(_MOST_TASKS)]
        tasks = {share: self._task(share, feeds) for share in shares if share}
        for share, answers in self._answers(tasks):
            for number, answer in enumerate(answers):
                if not answer["ok"]:
                    self._refuse("run" if number else "load", answer)
            for index, answer in zip(share, answers[1:], strict=True):
                self.peak_rss = max(self.peak_rss, answer["peak_rss"])
                found[index] = unpack(answer["manifest"], Path(answer["outputs"]))
        yield from (found[index] for index in range(len(feeds)))

    def stop(self) -> None:
        """Do nothing: between runs no process is left."""

    def close(self) -> None:
        """Remove the files, the outputs among them."""
        self._folder.remove()

    def _task(
        self, share: Sequence[int], feeds: Sequence[Mapping[str, Array | Sequence[Array] | None]]
    ) -> Task:
        runs = []
        for index in share:
            path = self._folder.path / f"inputs.{index}"
            runs.append({"do": "run", "inputs": str(path), "manifest": pack(feeds[index], path)})
        return Task(self._opening, runs, str(self._folder.path), self._allowance.seconds())

    def _answers(self, tasks: Mapping[range, Task]) -> Iterator[tuple[range, _Answers]]:
        """Yield the answers to tasks; what the executor breaks down over is done here."""
        pending: dict[range, Future[_Answers]] = {}
        try:
            for share, task in tasks.items():
                try:
                    pending[share] = self._executor.submit(perform, task)
                except BrokenExecutor:
                    break
            for share, task in tasks.items():
                try:
                    yield share, pending[share].result() if share in pending else perform(task)
                except BrokenExecutor:
                    yield share, perform(task)
        finally:
            for future in pending.values():
                future.cancel()
            wait(pending.values())

    def _refuse(self, stage: str, answer: Mapping[str, Any]) -> None:
        memory = self._allowance.memory
        if "died" in answer:
            how, late, out_of_memory = answer["died"]
            died = Died(how, late=late, memory=out_of_memory)
            raise run_error(stage, "onnxruntime", died, memory)
        raise run_error(stage, "onnxruntime", answer, memory)
