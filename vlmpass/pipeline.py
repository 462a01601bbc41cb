"""The way through: open, run the passes on a copy, judge the result, write it."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

import onnx_ir as ir

from vlmpass.acceptance import Held, Judge, Result
from vlmpass.intent import Intent
from vlmpass.ir_tools.errors import CheckError, ModelError, SaveError
from vlmpass.ir_tools.graph.clone import clone
from vlmpass.ir_tools.graph.walk import tensor_slots
from vlmpass.ir_tools.inspecting import Facts
from vlmpass.ir_tools.load import load
from vlmpass.ir_tools.load.parse import parse_file
from vlmpass.ir_tools.load.source import Source
from vlmpass.ir_tools.save import SaveReport, parse_size, save
from vlmpass.ir_tools.save.layout import Layout, Weights, layout_of, refuse_contradiction, way_of
from vlmpass.ir_tools.save.size import SHARD_LIMIT
from vlmpass.ir_tools.system.arguments import a_list, flag, number, seconds, wrong
from vlmpass.ir_tools.system.memory import peak_rss
from vlmpass.ir_tools.system.paths import output_file
from vlmpass.ir_tools.system.runtime import require_onnxruntime
from vlmpass.ir_tools.weights import file_range
from vlmpass.notes import losses, unmatched, warnings_kept
from vlmpass.passes import PassManager, PassReport, RunReport, parse
from vlmpass.passes.instruments.instrument import Instrument
from vlmpass.passes.instruments.provenance import Provenance
from vlmpass.passes.pipeline.base import Pass
from vlmpass.presets import SIMPLIFY, fit_ir_version, pipeline_text
from vlmpass.report import Checked, Loaded, Report, Snapshot
from vlmpass.stages import Stages

__all__ = ["Pipeline"]

Passes: TypeAlias = "str | ir.passes.PassBase | Sequence[ir.passes.PassBase]"
_Verify: TypeAlias = "tuple[bool | None, int | None, float | None]"


class Pipeline:
    """Passes to run over models.

    Args:
        passes: Pipeline text such as ``unify-dtype{to=float32},convert-opset{to=18}``, or passes;
            one pass alone, and onnx_ir passes, will do.
        opset: Instead of passes: the opset wanted, ``auto`` or ``lowest``.
        dtype: Instead of passes: ``float32``, ``float16`` or ``bfloat16``.
        target: Who is to run the result, such as ``ort-cpu``.
        quant: Instead of passes: what linear layers with packed weights (GPTQ, AWQ) become,
            ``matmul-nbits``, ``dequantize-linear`` or ``float``.
        simplify: Instead of passes: leave as few nodes as possible.
        fuse: Instead of passes: make normalisations and activations one operator each, of the
            ``standard`` or ONNX Runtime's own, ``ort``.
        keep_io: With an element type: inputs and outputs keep theirs, with Casts at the border.
        calibrate: With half precision: ``random``, or an .npz file of inputs, to find with what
            would overflow; that stays float32.
        widen_io: With an opset: inputs and outputs of a type that it does not have take one that
            holds all its values, such as int8 for int4.
        mend_shifts: Instead of passes: packed words are shifted as in PyTorch, where the exporter
            divided; the result is compared with the source mended likewise.
        restamp: Instead of passes: the opset is the one that the nodes are written for, whatever
            the file says; before all else.
        instruments: What else happens around each pass.

    Raises:
        ArgumentError: An argument is of a wrong type.
        PipelineError: Unknown passes, options or names, or both passes and an intent.
    """

    def __init__(
        self,
        passes: Passes | None = None,
        *,
        opset: int | str | None = None,
        dtype: str | None = None,
        target: str | None = None,
        quant: str | None = None,
        simplify: bool = False,
        fuse: str | None = None,
        keep_io: bool = False,
        calibrate: str | None = None,
        widen_io: bool = False,
        mend_shifts: bool = False,
        restamp: bool = False,
        instruments: Sequence[Instrument] = (),
    ) -> None:
        self._intent = Intent(
            opset,
            dtype,
            target,
            quant,
            simplify,
            fuse,
            keep_io,
            calibrate,
            widen_io,
            mend_shifts,
            restamp,
        )
        if passes is not None:
            self._intent.refuse_beside_passes()
        self._passes: tuple[ir.passes.PassBase, ...] | None = None
        if passes is not None:
            self._passes = _passes(passes)
        self._instruments = (Provenance(), *a_list("instruments", instruments, Instrument))

    def __call__(self, model: Source) -> Report:
        """Run the passes over a model in memory; what `run` does without options."""
        return self.run(model)

    def run(
        self,
        model: Source,
        *,
        verify: bool | None = False,
        memory: int | None = None,
        verify_seconds: float | None = None,
    ) -> Report:
        """Run the passes over a model in memory.

        Args:
            model: Anything that `load` takes; an `ir.Model` stays as it is, and the result is the
                report's `model`.
            verify: Compare the result's numbers with the source's; None does so where ONNX Runtime
                is installed.
            memory: Bytes that a runtime may take beside the weights to load or compare; by default
                a quarter of the machine's memory, from 1 to 4 GB.
            verify_seconds: How long comparing may take; by default two minutes, and as long as it
                needs with ``verify=True``.

        Raises:
            VlmpassError: A pass refused or failed, the result is wrong, or ONNX Runtime does not
                load it and is its target.
        """
        run = _Run(self, model, _judging(verify, memory, verify_seconds))
        with run.advising():
            run.transform()
            checked = run.judge(Held(run.work), run.loads())
        return run.report(checked, run.snapshot(None), result=run.work)

    def convert(
        self,
        source: Source,
        path: str | os.PathLike[str],
        *,
        shard_size: int | str | None = None,
        layout: Layout | str = "default",
        weights: Weights = "auto",
        jobs: int | None = None,
        verify: bool | None = None,
        memory: int | None = None,
        verify_seconds: float | None = None,
        force: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> Report:
        """Run the passes over a model and write the result; it appears whole or not at all.

        Args:
            source: A path, or anything that `load` takes.
            path: Of the result. A model that is there is replaced once the new one is complete.
            shard_size: Limit of every file, such as ``500MB``, by default 2 GB; a larger weight is
                split in the graph.
            layout: ``default``, ``hf``, ``single``, ``inline`` or ``safetensors``.
            weights: ``keep`` data files that need no change, ``copy`` them, or ``auto``.
            jobs: Threads that write.
            verify: Compare numbers with the source's; None does so where ONNX Runtime is
                installed. The type check is always made, and a result for ONNX Runtime is loaded.
            memory: Bytes that a runtime may take beside the weights, as for `run`.
            verify_seconds: How long comparing may take, as for `run`.
            force: Replace a file in the way that is not a model.
            progress: Called with bytes written so far and bytes in all.

        Raises:
            VlmpassError: It cannot be done right; nothing was written.
        """
        limit = parse_size(SHARD_LIMIT if shard_size is None else shard_size)
        kind, way = layout_of(layout), way_of(weights)
        refuse_contradiction(kind, way, limited=shard_size is not None)
        judging = _judging(verify, memory, verify_seconds)
        _refuse_foreign(output_file(path), flag("force", force))
        run = _Run(self, source, judging)
        found: list[Checked] = []
        with run.advising():
            run.transform()
            if kind.limits_files:
                run.split(limit)
            loaded = run.loads()
            with run.stages("save"):
                saved = save(
                    run.work,
                    path,
                    shard_size=None if shard_size is None else limit,
                    layout=kind,
                    weights=way,
                    jobs=jobs,
                    progress=progress,
                    before_commit=lambda written: found.append(run.judge(written, loaded)),
                )
        after = run.snapshot(saved)
        return run.report(found[0], after, saved=saved)


def _passes(given: object) -> tuple[ir.passes.PassBase, ...]:
    if isinstance(given, str):
        return parse(given)
    if isinstance(given, ir.passes.PassBase):
        return (given,)
    if not isinstance(given, Sequence):
        raise wrong("passes", given, "pipeline text or a list of passes")
    return a_list("passes", given, ir.passes.PassBase)  # type: ignore[type-abstract]


def _judging(verify: object, memory: object, verify_seconds: object) -> _Verify:
    return (
        None if verify is None else flag("verify", verify),
        number("memory", memory, 1),
        seconds("verify_seconds", verify_seconds),
    )


class _Run:
    """One run of a pipeline over one model."""

    def __init__(self, pipeline: Pipeline, source: Source, verify: _Verify) -> None:
        self._start = time.perf_counter()
        self._pipeline = pipeline
        target = pipeline._intent.target
        if (target or "").startswith("ort-"):
            require_onnxruntime()
        self._verify = verify
        self._path = os.fspath(source) if isinstance(source, (str, os.PathLike)) else None
        # An ir.Model is the caller's: load would replace its tensors.
        self.stages = Stages()
        with self.stages("load"):
            self.work = load(clone(source) if isinstance(source, ir.Model) else source)
        with self.stages("count"):  # now: the file may be about to be replaced
            self._before = _snapshot(self.work, self._path)
        self._source = None if self._path is not None else clone(self.work)
        self._ran: list[RunReport] = []
        self._notes: list[str] = []
        self._done: list[tuple[ir.passes.PassBase, PassReport]] = []
        self._rounds = False
        self._half: ir.DataType | None = None
        self._mends: list[Pass] = []

    def transform(self) -> None:
        """Run the passes."""
        pipeline = self._pipeline
        passes = pipeline._passes
        if passes is None:
            passes = parse(pipeline_text(pipeline._intent, self.work))
        self._run(passes)
        if pipeline._intent.target is not None:
            fit_ir_version(self.work, pipeline._intent.target)

    def split(self, limit: int) -> None:
        """Split the weights that are larger than a file may be, if there are such."""
        if any(slot.tensor.nbytes > limit for slot in tensor_slots(self.work)):
            # What makes nodes fewer goes over the parts as a second run would.
            names = {"infer", *SIMPLIFY.split(",")}
            ran = [each for each, _ in self._done if isinstance(each, Pass)]
            tidying = [each for each in ran if each.name in names]
            self._run([*parse(f"split-tensor{{limit={limit}}}"), *tidying])

    def _run(self, passes: Sequence[ir.passes.PassBase]) -> None:
        ours = [each for each in passes if isinstance(each, Pass)]
        self._rounds |= any(each.rounds_constants for each in ours)
        self._half = next((each.half for each in ours if each.half is not None), self._half)
        self._mends += [each for each in ours if each.mends_source]
        manager = PassManager(passes, self._pipeline._instruments, source=self._path)
        with self.stages("passes"), warnings_kept(self._notes):
            self._ran.append(manager.run(self.work, in_place=True))
        asked = [each for each in self._ran[-1].passes if not each.needed_by]
        self._done += zip(passes, asked, strict=True)

    @contextlib.contextmanager
    def advising(self) -> Iterator[None]:
        """Advise to restamp a source that is invalid only as it is stamped."""
        try:
            yield
        except CheckError as error:
            if not self._pipeline._intent.restamp:
                from vlmpass.rewriter_rules.opset.restamp import remedy

                error.remedy = remedy(self._load_source()) or error.remedy
            raise

    def loads(self) -> Loaded:
        """Return whether ONNX Runtime loads what came out, before any of it is written."""
        return self._judge().loads(self.work)

    def judge(self, result: Result, loaded: Loaded) -> Checked:
        """Return what was verified of a result, or raise."""
        return self._judge().judge(result, loaded)

    def _judge(self) -> Judge:
        numbers, memory, seconds = self._verify
        return Judge(
            self._load_source,
            numbers,
            self._pipeline._intent.target,
            memory,
            seconds,
            rounded_constants=self._rounds,
            half=self._half,
            stages=self.stages,
        )

    def _load_source(self) -> ir.Model:
        """Return the source, mended; one that has a file is not kept in memory meanwhile."""
        if self._path is None:
            assert self._source is not None
            source = self._source
        else:
            with self.stages("load the source again"):
                source = load(self._path)
        with warnings_kept([]):  # they were said of the result
            for each in self._mends:
                each.run(source)
        return source

    def snapshot(self, saved: SaveReport | None) -> Snapshot:
        """Return the result in figures, read off the final graph."""
        with self.stages("count"):
            facts = Facts.of(self.work)
        if saved is None:
            return Snapshot(facts, facts.nbytes, 0)
        total = sum(file.nbytes for file in saved.files)
        return Snapshot(facts, total, len(saved.files) - 1)

    def report(
        self,
        checked: Checked,
        after: Snapshot,
        *,
        saved: SaveReport | None = None,
        result: ir.Model | None = None,
    ) -> Report:
        return Report(
            pipeline=",".join(ran.pipeline for ran in self._ran if ran.pipeline),
            before=self._before,
            after=after,
            passes=tuple(each for ran in self._ran for each in ran.passes),
            checked=checked,
            seconds=time.perf_counter() - self._start,
            peak_rss=peak_rss(),
            source=self._path,
            saved=saved,
            notes=(
                *self._notes,
                *unmatched(self._done, self._pipeline._intent),
                *(losses(saved) if saved is not None else ()),
            ),
            result=result,
            stages=self.stages.all(),
        )


def _snapshot(model: ir.Model, path: str | None) -> Snapshot:
    ranges = [file_range(slot.tensor) for slot in tensor_slots(model)]
    files = {where.path for where in ranges if where is not None}
    facts = Facts.of(model)
    if path is None:
        return Snapshot(facts, facts.nbytes, 0)
    files.discard(os.path.realpath(path))  # large inline weights lie in the model file itself
    total = sum(os.path.getsize(each) for each in (path, *files))
    return Snapshot(facts, total, len(files))


def _refuse_foreign(path: Path, force: bool) -> None:
    """Refuse to replace a file that is not a model, unless that is asked for."""
    if force or not path.is_file():
        return
    try:
        parse_file(path)
    except ModelError as error:
        raise SaveError(
            f"{path} exists and is not an ONNX model", remedy="--force replaces it"
        ) from error
