"""Tasks done by an executor of the caller: in other processes, or on machines that share folders.

A task is a few ranges of files, or expressions over them, and where their bytes go. It travels as
that and never as the bytes; done twice, it writes the same at the same place. So what a worker that
died left undone, or half done, is done once more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, as_completed, wait
from dataclasses import replace

from vlmpass.ir_tools.save.pack import Block, NewFile
from vlmpass.ir_tools.save.tasks import Task
from vlmpass.ir_tools.save.write import Writer, work_off
from vlmpass.ir_tools.weights import LazyWeight, Tally

__all__ = ["perform", "work_off_elsewhere"]


def perform(task: Task) -> tuple[int, dict[str, Tally]]:
    """Do one task, wherever this runs, and make it durable.

    Returns:
        The bytes written, and what casts lost, by place.
    """
    writer = Writer([task])
    writer.run(task)
    return writer.done, writer.tallies


def work_off_elsewhere(
    tasks: Sequence[Task], jobs: int | None, progress: Callable[[int], object], executor: Executor
) -> dict[str, Tally]:
    """Do tasks through an executor, and here what it breaks down over.

    Args:
        tasks: Of files that were created, in a folder that its workers have under the same path.
        jobs: Threads that work here, if any must.
        progress: Called from this thread with the bytes done so far.
        executor: Of any kind.

    Returns:
        What casts lost, by place.

    Raises:
        SaveError: A file cannot be written, or a source has changed.
        ModelError: A weight cannot be evaluated.
    """
    pending: dict[Future[tuple[int, dict[str, Tally]]], Task] = {}
    left: list[Task] = []
    tallies: dict[str, Tally] = {}
    done = 0
    try:
        for task in tasks:
            try:
                pending[executor.submit(perform, _light(task))] = task
            except BrokenExecutor:
                left.append(task)
        for future in as_completed(pending):
            try:
                nbytes, lost = future.result()
            except BrokenExecutor:
                left.append(pending[future])
                continue
            done += nbytes
            tallies |= lost
            progress(done)
    finally:
        for future in pending:
            future.cancel()
        wait(pending)
    if left:
        tallies |= work_off(left, jobs, lambda more: progress(done + more))
    return tallies


def _light(task: Task) -> Task:
    """Return a task without what its file holds beside, and without names and notes of weights."""
    file = replace(task.file, content=NewFile(task.file.content.nbytes, ()))
    return Task(file, [(offset, _bare(content)) for offset, content in task.contents])


def _bare(content: bytes | Block) -> bytes | Block:
    if isinstance(content, bytes):
        return content
    return replace(content, weight=LazyWeight(content.weight.expression), members=())
