"""Saving: an output is planned, its files are written in a temporary folder, one commit follows."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import onnx_ir as ir

from vlmpass.ir_tools.errors import SaveError
from vlmpass.ir_tools.load.source import Source, load
from vlmpass.ir_tools.save.commit import UnfinishedError, copied, put_in_place, stale_files
from vlmpass.ir_tools.save.commits import note_commit
from vlmpass.ir_tools.save.fill import Progress, write_files
from vlmpass.ir_tools.save.layout import Layout, Weights, layout_of, refuse_contradiction, way_of
from vlmpass.ir_tools.save.orphans import record_litter
from vlmpass.ir_tools.save.prepare import Output, plan_output
from vlmpass.ir_tools.save.references import Folder
from vlmpass.ir_tools.save.report import How, SavedFile, SaveReport
from vlmpass.ir_tools.save.size import SHARD_LIMIT, parse_size
from vlmpass.ir_tools.save.staged import Staged
from vlmpass.ir_tools.save.staging import Staging, remove_dead
from vlmpass.ir_tools.save.write import naming
from vlmpass.ir_tools.system.arguments import callable_or_none, executor_or_none, number
from vlmpass.ir_tools.system.collector import without_collector
from vlmpass.ir_tools.system.locks import locked_folder
from vlmpass.ir_tools.system.paths import output_file
from vlmpass.ir_tools.system.uninterruptible import shielded
from vlmpass.ir_tools.weights import Tally, release_files

__all__ = ["Draft", "drafted", "planned", "save"]


@dataclass(frozen=True)
class _Committed:
    names: Sequence[str]
    nbytes: int
    removed: Sequence[Path]
    note: str | None


def _commit(staged: Staged) -> _Committed:
    """Put a written output in place; the folder is looked at anew, under its lock."""
    output = staged.output
    with locked_folder(output.path.parent):
        owners = Folder(output.path)
        for kept in output.plan.kept:
            kept.check()
        names = output.names(owners)
        data = staged.data(names)
        clashing = [file for file in data if os.path.lexists(file.final)]
        free = [file for file in data if file not in clashing]
        with naming(output.path.name):
            clashing = [replace(file, copy=copied(file.path)) for file in clashing]
        note = None
        if output.whole is None:
            note = staged.write_model(staged.model.path, names)
        if clashing:
            moved = {str(f.final): f"{staged.folder.name}/{f.path.name}" for f in clashing}
            folder = output.path.parent
            staged.write_model(staged.interim, [moved.get(str(folder / n), n) for n in names])
        stale = stale_files(owners, [output.path.parent / name for name in names])
        record_litter(
            staged.folder,
            [(file.copy or file.path, file.final) for file in (*free, *clashing)],
            [*stale, *(file.final for file in clashing)],
            staged.interim if clashing else staged.model.path,
        )
        nbytes = staged.model.path.stat().st_size
        release_files()
        put_in_place(free, clashing, staged.interim, staged.model)
        note_commit(output.path)
        removed = [path for path in stale if _removed(path)]
    return _Committed(names, nbytes, removed, note)


def _removed(path: Path) -> bool:
    with suppress(OSError):
        path.unlink()
        return True
    return False


def _report(output: Output, done: _Committed, tallies: Mapping[str, Tally]) -> SaveReport:
    folder = output.path.parent
    files = [SavedFile(output.path.name, done.nbytes, "written")]
    kept = len(output.plan.kept)
    for name, file in zip(done.names, output.plan.kept, strict=False):
        files.append(SavedFile(name, file.nbytes, "kept"))
    for name, new in zip(done.names[kept:], output.plan.new, strict=True):
        how: How = "copied" if all(block.source for _, block in new.blocks) else "written"
        files.append(SavedFile(name, new.nbytes, how))
    return SaveReport(
        str(output.path),
        tuple(files),
        sum(file.nbytes for file in files if file.how != "kept"),
        {**output.skeleton.tallies, **tallies},
        tuple(path.relative_to(folder).as_posix() for path in done.removed),
        (done.note,) if done.note else (),
    )


def _measured(output: Output) -> tuple[int, str | None]:
    """Return how large the model file is to be, and what is to be said of it."""
    if output.whole is not None:
        return output.whole.nbytes, None
    content, note = output.model_bytes(output.expected)
    return len(content), note


class Draft:
    """An output that is written whole, and not yet in its place.

    Args:
        staged: The output, its data files written.
        tallies: What evaluating its weights counted.

    Attributes:
        staged: It can be checked and read back.
    """

    def __init__(self, staged: Staged, tallies: Mapping[str, Tally]) -> None:
        self.staged = staged
        self._tallies = tallies

    def sizes(self) -> dict[str, int]:
        """Return the sizes in bytes of all its files, by name."""
        output = self.staged.output
        data = zip(output.expected, output.plan.sizes(), strict=True)
        return {output.path.name: _measured(output)[0], **dict(data)}

    def commit(self) -> SaveReport:
        """Put it in its place, the model file last.

        Raises:
            SaveError: It cannot be put there; the folder is as it was.
        """
        done = shielded(lambda: _commit(self.staged))
        return _report(self.staged.output, done, self._tallies)


class _Asked:
    """What is asked of an output, judged before anything is done.

    Args:
        target: The model file, absolute.
        shard_size, layout, weights: As for `save`.
    """

    def __init__(
        self, target: Path, shard_size: int | str | None, layout: Layout | str, weights: Weights
    ) -> None:
        self.target = target
        self._way = way_of(weights)
        self._limit = parse_size(SHARD_LIMIT if shard_size is None else shard_size)
        self._layout = layout_of(layout)
        refuse_contradiction(self._layout, self._way, limited=shard_size is not None)

    def plan(self, model: ir.Model) -> Output:
        return plan_output(model, self.target, self._layout, self._limit, self._way)


def planned(
    model: ir.Model,
    path: str | os.PathLike[str],
    *,
    shard_size: int | str | None = None,
    layout: Layout | str = Layout.DEFAULT,
    weights: Weights = "auto",
) -> SaveReport:
    """Return what `save` would do; nothing is written, and no weight is evaluated.

    Args:
        model, path, shard_size, layout, weights: As for `save`.

    Raises:
        SaveError: It cannot be written as asked.
    """
    output = _Asked(output_file(path), shard_size, layout, weights).plan(model)
    used = [output.path.parent / name for name in output.expected]
    nbytes, note = _measured(output)
    stale = stale_files(Folder(output.path), used)
    return _report(output, _Committed(output.expected, nbytes, stale, note), {})


@contextmanager
def drafted(
    model: Source,
    path: str | os.PathLike[str],
    *,
    shard_size: int | str | None = None,
    layout: Layout | str = Layout.DEFAULT,
    weights: Weights = "auto",
    jobs: int | None = None,
    executor: Executor | None = None,
    progress: Progress | None = None,
) -> Iterator[Draft]:
    """Write a model into a temporary folder, from where `commit` puts it in its place.

    Left without a commit, the folder goes away, and all is as it was.

    Args:
        model, path, shard_size, layout, weights, jobs, executor, progress: As for `save`.

    Raises:
        ArgumentError: An argument is of a wrong type.
        SaveError: It cannot be written as asked; the folder is as it was.
        ModelError: A weight cannot be read or evaluated; likewise.
    """
    jobs = number("jobs", jobs, None)
    callable_or_none("progress", progress)
    executor_or_none("executor", executor)
    if jobs is not None and jobs < 1:
        raise SaveError(f"{jobs} jobs cannot write anything", remedy="ask for 1 or more")
    asked = _Asked(output_file(path), shard_size, layout, weights)
    opened, target = model if isinstance(model, ir.Model) else load(model), asked.target
    remove_dead(target)
    output = asked.plan(opened)
    staging = Staging(target)
    keep = False
    try:
        staged = Staged(opened, output, staging.path)
        yield Draft(staged, write_files(staged.files(), jobs, progress, executor))
    except UnfinishedError:
        keep = True
        raise
    finally:
        staging.close(keep=keep)
    remove_dead(target)


@without_collector
def save(
    model: Source,
    path: str | os.PathLike[str],
    *,
    shard_size: int | str | None = None,
    layout: Layout | str = Layout.DEFAULT,
    weights: Weights = "auto",
    jobs: int | None = None,
    executor: Executor | None = None,
    progress: Progress | None = None,
    before_commit: Callable[[Staged], None] | None = None,
) -> SaveReport:
    """Write a model so that its files appear whole or not at all, the model file last.

    An output that is already there is replaced, and stays whole until the new one is; data files
    that only it referred to are removed. Weights are never held in memory whole. The output does
    not depend on `jobs`.

    Args:
        model: Anything that `load` takes; unchanged when this returns.
        path: The model file. ``.textproto``, ``.json`` and ``.onnxtxt`` are written as text. A link
            is replaced, not followed.
        shard_size: The most bytes of any file, as a number or like ``500MB`` or ``2GiB``; by
            default 2 GB, by which layouts ``single`` and ``inline`` are not bound.
        layout: How data files are called, see `Layout`.
        weights: ``keep`` refers to the source's data files instead of copying them and refuses if
            one cannot be kept, ``copy`` copies always, ``auto`` keeps where it can: files in the
            output's folder or below it, not above the limit, whose bytes are unchanged.
        jobs: Threads that write.
        executor: Writes the data files instead: other processes, or machines that have the folders
            of source and output under the same paths. What it breaks down over is written here.
        progress: Called with bytes done and bytes in all.
        before_commit: Called with the output as it lies in the temporary folder, which it can check
            and read back; if it raises, nothing takes its place.

    Raises:
        ArgumentError: An argument is of a wrong type.
        SaveError: It cannot be written as asked; the folder is as it was.
        ModelError: A weight cannot be read or evaluated; likewise.
    """
    callable_or_none("before_commit", before_commit)
    writing = drafted(
        model,
        path,
        shard_size=shard_size,
        layout=layout,
        weights=weights,
        jobs=jobs,
        executor=executor,
        progress=progress,
    )
    with writing as draft:
        if before_commit is not None:
            before_commit(draft.staged)
        return draft.commit()
