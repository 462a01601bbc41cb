"""Tasks done in parallel under a memory budget: copied by the kernel, or computed in chunks."""

from __future__ import annotations

import errno
import os
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path

from vlmpass.ir_tools.errors import SaveError
from vlmpass.ir_tools.save.copying import copy_range, write_at
from vlmpass.ir_tools.save.pack import Block
from vlmpass.ir_tools.save.size import format_size
from vlmpass.ir_tools.save.tasks import Task, stamp_of
from vlmpass.ir_tools.weights import Tally
from vlmpass.ir_tools.weights.files import Stamp

__all__ = ["Writer", "check_space", "naming", "work_off"]

_STEP_BYTES = 64 << 20  # between two looks at whether to stop
_BUDGET_BYTES = 128 << 20
_PLAIN_COST, _STRIDED_COST = 32 << 20, 80 << 20  # of evaluating one weight
_REPORT_SECONDS = 0.1
_MAX_JOBS = 4


class _Budget:
    """Memory for evaluating weights, lent to threads."""

    def __init__(self, nbytes: int) -> None:
        self._free = nbytes
        self._changed = threading.Condition()

    @contextmanager
    def lend(self, nbytes: int) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: self._free >= nbytes)
            self._free -= nbytes
        try:
            yield
        finally:
            with self._changed:
                self._free += nbytes
                self._changed.notify_all()


class _StoppedError(Exception):
    """Another thread failed, or the caller gave up."""


@contextmanager
def naming(name: str) -> Iterator[None]:
    """Say of an error of the system which file it is about.

    Raises:
        SaveError: For an OSError from within.
    """
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        raise SaveError(
            f"{name} cannot be written: {error.strerror}",
            remedy="free space, or choose another folder" if full else "",
        ) from error


@contextmanager
def _source_of(block: Block) -> Iterator[int]:
    """Open the file a block lies in, in the state it was in when the model was loaded."""
    assert block.source is not None
    path = block.source.path
    try:
        source = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    except OSError as error:
        raise SaveError(f"{path} cannot be read: {error.strerror}") from error
    try:
        if Stamp.of(os.fstat(source)) != stamp_of(block):
            raise SaveError(f"{path} has changed since the model was loaded", remedy="load it anew")
        yield source
    finally:
        os.close(source)


class Writer:
    """What the threads share while they work.

    Attributes:
        done: Bytes so far.
        tallies: What casts lost, by place.
        stop: Set where the threads should give up.
    """

    def __init__(self, tasks: Sequence[Task]) -> None:
        self.done = 0
        self.tallies: dict[str, Tally] = {}
        self.stop = threading.Event()
        self._left = Counter(task.file.path for task in tasks)
        self._budget = _Budget(_BUDGET_BYTES)
        self._lock = threading.Lock()

    def run(self, task: Task) -> None:
        """Do a task, and make the file durable after the last one."""
        with naming(task.file.name):
            target = os.open(task.file.path, os.O_WRONLY | getattr(os, "O_BINARY", 0))
            try:
                for offset, content in task.contents:
                    self._fill(target, offset, content)
                with self._lock:
                    self._left[task.file.path] -= 1
                    last = not self._left[task.file.path]
                if last:
                    os.fsync(target)
            finally:
                os.close(target)

    def _fill(self, target: int, offset: int, content: bytes | Block) -> None:
        self._advance(0)
        if isinstance(content, bytes):
            write_at(target, content, offset)
            self._advance(len(content))
        elif content.source is not None:
            self._copy(target, offset, content)
        else:
            cost = _STRIDED_COST if content.weight.expression.strided else _PLAIN_COST
            with self._budget.lend(cost):
                self._compute(target, offset, content)

    def _advance(self, nbytes: int) -> None:
        if self.stop.is_set():
            raise _StoppedError
        with self._lock:
            self.done += nbytes

    def _copy(self, target: int, offset: int, block: Block) -> None:
        assert block.source is not None
        start = block.source.offset
        with _source_of(block) as source:
            for shift in range(0, block.nbytes, _STEP_BYTES):
                step = min(_STEP_BYTES, block.nbytes - shift)
                try:
                    copy_range(source, start + shift, target, offset + shift, step)
                except EOFError as error:
                    raise SaveError(f"{block.source.path} is cut off: {error}") from error
                self._advance(step)

    def _compute(self, target: int, offset: int, block: Block) -> None:
        tally = Tally()
        written = 0
        for shift, piece in block.weight.pieces(tally):
            write_at(target, piece, offset + shift)
            written += len(piece)
            self._advance(len(piece))
        if written != block.nbytes:
            raise SaveError(
                f"{block.where} evaluates to {written} bytes, not to the {block.nbytes} that its "
                "type and shape take"
            )
        if tally:
            with self._lock:
                self.tallies[block.name] = tally


def check_space(folder: Path, nbytes: int) -> None:
    """Check that a folder's file system has room for so many bytes.

    Raises:
        SaveError: It has not.
    """
    free = shutil.disk_usage(folder).free
    if nbytes > free:
        raise SaveError(
            f"the output needs {format_size(nbytes)} and {folder} has {format_size(free)} left",
            remedy="free space, or choose another folder",
        )


def work_off(
    tasks: Sequence[Task], jobs: int | None, progress: Callable[[int], object]
) -> dict[str, Tally]:
    """Do tasks in threads of this process.

    Args:
        tasks: Of files that were created.
        jobs: Threads; by default one per processor, at most four. Memory does not depend on it.
        progress: Called from this thread with the bytes done so far.

    Returns:
        What casts lost, by place; places that lost nothing are not listed.

    Raises:
        SaveError: A file cannot be written, or a source has changed.
        ModelError: A weight cannot be evaluated.
    """
    writer = Writer(tasks)
    pool = ThreadPoolExecutor(jobs or min(_MAX_JOBS, os.cpu_count() or 1))
    try:
        pending = {pool.submit(writer.run, task) for task in tasks}
        while pending:
            done, pending = wait(pending, _REPORT_SECONDS, FIRST_EXCEPTION)
            for future in done:
                future.result()
            progress(writer.done)
    finally:
        writer.stop.set()
        pool.shutdown(cancel_futures=True)
    return writer.tallies
