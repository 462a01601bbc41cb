"""The way through: open, run the passes on a copy, judge the result, write it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field

import onnx_ir as ir

from vlmpass.acceptance import Held
from vlmpass.convert_options import Comparing, Writing
from vlmpass.intent import Intent, Passes
from vlmpass.ir_tools.load.source import Source
from vlmpass.ir_tools.save.layout import Layout, Weights
from vlmpass.ir_tools.save.saving import drafted, planned
from vlmpass.ir_tools.system.arguments import a_list, callable_or_none, executor_or_none
from vlmpass.ir_tools.system.collector import without_collector
from vlmpass.ir_tools.system.executor import running_on
from vlmpass.ir_tools.system.paths import output_file
from vlmpass.options import helped
from vlmpass.passes.instruments.instrument import Instrument
from vlmpass.replacing import refuse_foreign
from vlmpass.report import Report
from vlmpass.running import Run, read_passes

__all__ = ["Pipeline"]


@helped(Intent)
@dataclass(frozen=True)
class Pipeline(Intent):
    """Passes to run over models.

    Args:
        passes: Pipeline text such as ``unify-dtype{to=float32},convert-opset{to=18}``, or passes;
            one pass alone, and onnx_ir passes, will do. Instead of them, what they are to do:
        opset, dtype, keep_io, widen_io, restamp, mend_shifts: See `ConvertOptions`.
        calibrate, target, allow, quant, quantize, simplify, fuse: See `ConvertOptions`.
        sensitivity: See `ConvertOptions`.
        instruments: What else happens around each pass.

    Raises:
        ArgumentError: An argument is of a wrong type.
        PipelineError: Unknown passes, options or names, or both passes and what they are to do.
    """

    passes: Passes | None = None
    instruments: Sequence[Instrument] = field(default=(), kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.passes is not None:
            object.__setattr__(self, "passes", read_passes(self.passes))
        object.__setattr__(self, "instruments", a_list("instruments", self.instruments, Instrument))

    def __call__(self, model: Source) -> Report:
        """Run the passes over a model in memory; what `run` does without options."""
        return self.run(model)

    @helped(Comparing)
    @without_collector
    def run(
        self,
        model: Source,
        *,
        verify: bool | None = False,
        memory: int | str | None = None,
        verify_seconds: float | None = None,
    ) -> Report:
        """Run the passes over a model in memory.

        Args:
            model: Anything that `load` takes; an `ir.Model` stays as it is, and the result is the
                report's `model`.
            verify, memory, verify_seconds: See `ConvertOptions`.

        Raises:
            VlmpassError: A pass refused or failed, the result is wrong, or ONNX Runtime does not
                load it and is its target.
        """
        comparing = Comparing(verify=verify, memory=memory, verify_seconds=verify_seconds)
        run = Run(self, self.instruments, model, comparing)
        with run.advising():
            run.transform()
            checked = run.accept(Held(run.work), run.loads())
        return run.report(checked, run.snapshot(None), result=run.work)

    @helped(Writing, Comparing)
    @without_collector
    def convert(
        self,
        source: Source,
        path: str | os.PathLike[str],
        *,
        shard_size: int | str | None = None,
        layout: Layout | str = "default",
        weights: Weights = "auto",
        jobs: int | None = None,
        executor: Executor | None = None,
        verify: bool | None = None,
        memory: int | str | None = None,
        verify_seconds: float | None = None,
        force: bool = False,
        progress: Callable[[int, int], None] | None = None,
        judge: Callable[[ir.Model], None] | None = None,
    ) -> Report:
        """Run the passes over a model and write the result; it appears whole or not at all.

        Args:
            source: A path, or anything that `load` takes.
            path: Of the result. A model that is there is replaced once the new one is complete.
            shard_size, layout, weights, jobs, force: See `ConvertOptions`.
            verify, memory, verify_seconds: See `ConvertOptions`.
            executor: Writes the data files instead, in other processes or on machines that share
                the folders, as for `save`; runs the segments of models that one session does not
                take, and those that measure ranges.
            progress: Called with bytes written so far and bytes in all.
            judge: Called with the result as it will be read, before it takes its place; what it
                raises refuses the result.

        Raises:
            VlmpassError: It cannot be done right; nothing was written.
        """
        writing = Writing(
            shard_size=shard_size, layout=layout, weights=weights, jobs=jobs, force=force
        )
        comparing = Comparing(verify=verify, memory=memory, verify_seconds=verify_seconds)
        callable_or_none("progress", progress)
        callable_or_none("judge", judge)
        executor_or_none("executor", executor)
        refuse_foreign(output_file(path), writing.force)
        run = Run(self, self.instruments, source, comparing)
        with run.advising(), running_on(executor):
            run.transform()
            most = run.split(writing)
            loaded = run.loads()
            with (
                run.stages("save"),
                drafted(
                    run.work,
                    path,
                    shard_size=most,
                    layout=writing.layout,
                    weights=writing.weights,
                    jobs=writing.jobs,
                    executor=executor,
                    progress=progress,
                ) as draft,
            ):
                run.hold(draft.sizes())
                checked = run.accept(draft.staged, loaded)
                if judge is not None:
                    judge(draft.staged.load())
                saved = draft.commit()
        return run.report(checked, run.snapshot(saved), saved=saved)

    @helped(Writing, Comparing)
    @without_collector
    def plan(
        self,
        source: Source,
        path: str | os.PathLike[str],
        *,
        shard_size: int | str | None = None,
        layout: Layout | str = "default",
        weights: Weights = "auto",
        verify: bool | None = False,
        memory: int | str | None = None,
        verify_seconds: float | None = None,
        force: bool = False,
    ) -> Report:
        """Say what `convert` would do, and write nothing.

        The passes run and their result is checked, and loaded for its target; files are planned.
        No weight is evaluated, so that what casts would lose is not counted.

        Args:
            source, path: As for `convert`.
            shard_size, layout, weights, force: See `ConvertOptions`.
            verify, memory, verify_seconds: See `ConvertOptions`.

        Returns:
            A report whose `saved` lists the files that would be written.

        Raises:
            VlmpassError: `convert` would refuse it.
        """
        writing = Writing(shard_size=shard_size, layout=layout, weights=weights, force=force)
        comparing = Comparing(verify=verify, memory=memory, verify_seconds=verify_seconds)
        refuse_foreign(output_file(path), writing.force)
        run = Run(self, self.instruments, source, comparing)
        with run.advising():
            run.transform()
            most = run.split(writing)
            loaded = run.loads()
            with run.stages("plan the files"):
                saved = planned(run.work, path, shard_size=most, layout=layout, weights=weights)
            run.hold({file.name: file.nbytes for file in saved.files})
            checked = run.accept(Held(run.work), loaded)
        return run.report(checked, run.snapshot(saved), saved=saved, result=run.work)
