"""Files created and written whole, here or by an executor."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from functools import partial

from vlmpass.ir_tools.save.elsewhere import work_off_elsewhere
from vlmpass.ir_tools.save.tasks import StagedFile, tasks_of
from vlmpass.ir_tools.save.write import naming, work_off
from vlmpass.ir_tools.weights import Tally

__all__ = ["Progress", "write_files"]

Progress = Callable[[int, int], None]


def _create(file: StagedFile) -> None:
    """Create a file of its final size, with its blocks reserved where the system can do that."""
    with naming(file.name), file.path.open("xb") as created:
        created.truncate(file.content.nbytes)
        if hasattr(os, "posix_fallocate"):
            try:
                os.posix_fallocate(created.fileno(), 0, file.content.nbytes)
            except OSError as error:
                if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENODEV):
                    raise


def write_files(
    files: Sequence[StagedFile],
    jobs: int | None,
    progress: Progress | None,
    executor: Executor | None = None,
) -> dict[str, Tally]:
    """Write files whole and make them durable.

    Args:
        files: None of them exists yet.
        jobs: Threads; by default one per processor, at most four. Memory does not depend on it.
        progress: Called from this thread with bytes done and bytes in all.
        executor: Does the work instead, in other processes or on other machines.

    Returns:
        What casts lost, by place; places that lost nothing are not listed.

    Raises:
        SaveError: A file cannot be written, or a source has changed.
        ModelError: A weight cannot be evaluated.
    """
    for file in files:
        _create(file)
    total = sum(file.content.nbytes for file in files)
    tasks = tasks_of(files)

    def tell(done: int) -> None:
        if progress is not None:
            progress(done, total)

    work = work_off if executor is None else partial(work_off_elsewhere, executor=executor)
    tallies = work(tasks, jobs, tell)
    if tasks:
        tell(total)  # gaps are never written
    return tallies
