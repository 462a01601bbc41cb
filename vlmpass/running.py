"""One run of a pipeline over one model: what is asked of it in turn, and what it reports."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from functools import reduce
from operator import or_

import onnx_ir as ir

from vlmpass.acceptance import Acceptance, Result, fault_by_sizes, fault_of
from vlmpass.convert_options import Comparing, Writing
from vlmpass.fitting import files_of, fit, hold, most_bytes, shaped
from vlmpass.intent import Intent
from vlmpass.ir_tools.check.full import beside_standard
from vlmpass.ir_tools.errors import CheckError, PipelineError, Refused, VerifyError
from vlmpass.ir_tools.graph.clone import clone
from vlmpass.ir_tools.graph.effects import EXACT, NumberChanges
from vlmpass.ir_tools.graph.walk import tensor_slots
from vlmpass.ir_tools.inspecting import Facts
from vlmpass.ir_tools.load import load
from vlmpass.ir_tools.load.source import Source
from vlmpass.ir_tools.save import SaveReport
from vlmpass.ir_tools.system.arguments import a_list, wrong
from vlmpass.ir_tools.system.memory import peak_rss
from vlmpass.ir_tools.system.runtime import require_onnxruntime
from vlmpass.ir_tools.targets.findings import Files
from vlmpass.notes import losses, unmatched, warnings_kept
from vlmpass.passes import PassManager, PassReport, RunReport, parse
from vlmpass.passes.instruments.instrument import Instrument
from vlmpass.passes.instruments.provenance import Provenance
from vlmpass.passes.pipeline.base import Pass
from vlmpass.passes.pipeline.measuring_once import measuring_once
from vlmpass.presets import SIMPLIFY, pipeline_text
from vlmpass.report import Checked, Loaded, Report, Snapshot
from vlmpass.rewriter_rules.quant.kept_fits import forget_fits
from vlmpass.rounded_weights import BeforeRounding
from vlmpass.sensitivity import notes_of, read_budget, write_plot
from vlmpass.stages import Stages

__all__ = ["Run", "read_passes"]


def read_passes(given: object) -> tuple[ir.passes.PassBase, ...]:
    """Return passes as they were given: pipeline text, one pass or several."""
    if isinstance(given, str):
        return parse(given)
    if isinstance(given, ir.passes.PassBase):
        return (given,)
    if not isinstance(given, Sequence):
        raise wrong("passes", given, "pipeline text or a list of passes")
    return a_list("passes", given, ir.passes.PassBase)  # type: ignore[type-abstract]


_EXPORT_AGAIN = "export it again; from PyTorch, with the other exporter (dynamo=True, or False)"


class Run:
    """One run of a pipeline over one model.

    Args:
        asked: What the result is to be.
        instruments: What else happens around each pass.
        source: The model.
        comparing: What the result is held to.
    """

    def __init__(
        self,
        asked: Intent,
        instruments: Sequence[Instrument],
        source: Source,
        comparing: Comparing,
    ) -> None:
        self._start = time.perf_counter()
        if asked.profile is not None and asked.profile.runtime is not None:
            require_onnxruntime()
        self._asked = asked
        self._instruments = (Provenance(), *instruments)
        self._comparing = comparing
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
        self._told: list[str] = []
        self._done: list[tuple[ir.passes.PassBase, PassReport]] = []
        self._half: ir.DataType | None = None
        self._mends: list[Pass] = []
        self._exact: BeforeRounding | None = None

    def transform(self) -> None:
        """Run the passes.

        Raises:
            PipelineError: A budget is given for rounding, and none of the passes rounds.
        """
        given = self._asked.passes
        passes = read_passes(pipeline_text(self._asked, self.work) if given is None else given)
        if self._asked.sensitivity and not any(isinstance(p, Pass) and p.rounds for p in passes):
            what = "sensitivity is about rounding, and none of the passes rounds"
            raise PipelineError(what, remedy="add quantize-static, quantize-dynamic or the like")
        self._run(passes)
        if self._asked.profile is not None:
            fit(self.work, self._asked.profile)
        self.hold()

    def split(self, writing: Writing) -> int | None:
        """Split the weights that are larger than a file may be, and return how large one may be."""
        limit = most_bytes(writing, self._asked.profile)
        if limit is not None and any(
            slot.tensor.nbytes > limit for slot in tensor_slots(self.work)
        ):
            # What makes nodes fewer goes over the parts as a second run would.
            names = {"infer", *SIMPLIFY.split(",")}
            ran = [each for each, _ in self._done if isinstance(each, Pass)]
            tidying = [each for each in ran if each.name in names]
            self._run([*parse(f"split-tensor{{limit={limit}}}"), *tidying])
            self.hold()
        return limit

    def hold(self, files: Files | None = None) -> None:
        """Hold the result to what its target takes, and its files once their sizes are known."""
        target = self._asked.profile
        if target is None or (files is not None and target.file_size is None):
            return
        ran = [each for each, _ in self._done]
        self._told = hold(shaped(self.work, ran), target, files)

    def _run(self, passes: Sequence[ir.passes.PassBase]) -> None:
        """Run passes, and keep the model as it is before the first that rounds weights."""
        rounding = [each for each in passes if isinstance(each, Pass) and each.rounds]
        first = passes.index(rounding[0]) if rounding else 0
        if first:
            self._manage(passes[:first])
        if rounding:
            self._hold_back(rounding)
            before, done = clone(self.work), any(ran.changed for ran in self._ran)
            changes, runs = self._changes, len(self._ran)
        with measuring_once() as known:
            self._manage(passes[first:])
        if any(report.changed for each, report in self._done if each in rounding):
            self._exact = BeforeRounding(before, rounding, done, changes, runs, known)

    def _hold_back(self, rounding: Sequence[Pass]) -> None:
        """Let the most sensitive products stay float, where a budget is asked for."""
        if self._asked.sensitivity is None:
            return
        from vlmpass.passes.sensitivity import stay_within

        asked = read_budget(self._asked.sensitivity)
        with self.stages("measure sensitivity"):
            found = stay_within(self.work, rounding, asked.most, asked.inputs)
        if found is None:
            return
        self._notes += notes_of(found)
        if asked.plot:
            write_plot(found, asked.plot, self._path)

    def _manage(self, passes: Sequence[ir.passes.PassBase]) -> None:
        ours = [each for each in passes if isinstance(each, Pass)]
        self._half = next((each.half for each in ours if each.half is not None), self._half)
        self._mends += [mend for each in ours if (mend := each.mending()) is not None]
        manager = PassManager(passes, self._instruments, source=self._path)
        with self.stages("passes"), warnings_kept(self._notes):
            self._ran.append(manager.run(self.work, in_place=True))
        asked = [each for each in self._ran[-1].passes if not each.needed_by]
        self._done += zip(passes, asked, strict=True)

    @contextlib.contextmanager
    def advising(self) -> Iterator[None]:
        """Say what is wrong with the source itself, and to restamp it where that is all."""
        try:
            yield
        except (CheckError, VerifyError) as error:
            source = self._load_source()
            if not self._asked.restamp and isinstance(error, CheckError):
                from vlmpass.rewriter_rules.opset.restamp import remedy

                error.remedy = remedy(source) or error.remedy
            if fault := fault_of(source):
                told = [error.problem] if isinstance(error, CheckError) else [fault, error.problem]
                error.problem = f"the source is not valid itself: {'; '.join(told)}"
            elif isinstance(error, CheckError) and (fault := fault_by_sizes(source)):
                error.problem = f"the source is not valid itself, by its sizes: {fault}"
            if fault:
                error.remedy = error.remedy or _EXPORT_AGAIN
            raise

    def loads(self) -> Loaded:
        """Return whether ONNX Runtime loads what came out, before any of it is written."""
        return self._acceptance().loads(self.work)

    def accept(self, result: Result, loaded: Loaded) -> Checked:
        """Return what was verified of a result, or raise."""
        accepting, exact = self._acceptance(), self._exact
        if exact is None:
            return accepting.accept(result, loaded)
        since = _changes(self._ran[exact.runs :])
        try:
            return accepting.with_rounded_weights(exact, since, result, loaded)
        finally:
            forget_fits()  # a source that is in memory would stay there with them

    @property
    def _changes(self) -> NumberChanges:
        return _changes(self._ran)

    def _acceptance(self) -> Acceptance:
        return Acceptance(
            self._load_source,
            self._comparing,
            self._asked.profile,
            changes=self._changes,
            half=self._half,
            unlike=self._unlike,
            stages=self.stages,
        )

    @property
    def _unlike(self) -> str:
        """Why the result cannot be compared with the source; empty where it can."""
        changed = [each for each, report in self._done if report.changed]
        found = [each for each in changed if isinstance(each, Pass) and each.changes_interface]
        return f"{found[0].name} gave the model another interface" if found else ""

    def _load_source(self) -> ir.Model:
        """Return the source, mended; one that has a file is not kept in memory meanwhile."""
        if self._path is None:
            assert self._source is not None
            source = self._source
        else:
            with self.stages("load the source again"):
                source = load(self._path)
        if self._mends:
            # What warns was said of the result; what is refused at this opset stays as it is.
            with warnings_kept([]), contextlib.suppress(Refused):
                PassManager(self._mends).run(source, in_place=True)
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
        """Return what was done.

        Args:
            checked: What was verified of the result.
            after: The result.
            saved: What was written; where the result is given too, what would be.
            result: The result of a run that wrote nothing.
        """
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
                *self._told,
                *unmatched(self._done, self._asked),
                *beside_standard(self.work),
                *(losses(saved) if saved is not None else ()),
            ),
            result=result,
            stages=self.stages.all(),
            changes=self._changes,
            planned=saved is not None and result is not None,
        )


def _changes(ran: Sequence[RunReport]) -> NumberChanges:
    return reduce(or_, (each.changes for each in ran), EXACT)


def _snapshot(model: ir.Model, path: str | None) -> Snapshot:
    facts = Facts.of(model)
    if path is None:
        return Snapshot(facts, facts.nbytes, 0)
    sizes = files_of(model, path)
    return Snapshot(facts, sum(sizes.values()), len(sizes) - 1)
