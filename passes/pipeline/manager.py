"""Passes in order on a copy of the model, instruments around each, all or nothing."""

from __future__ import annotations

import gc
import shlex
import time
import traceback
from collections.abc import Iterator, Sequence

import onnx_ir as ir

from vlmpass.ir_tools.check.structure import refuse_cycles, refuse_lacking
from vlmpass.ir_tools.errors import PassFailed, Refused, VlmpassError
from vlmpass.ir_tools.graph.clone import adopt, clone
from vlmpass.ir_tools.graph.effects import EXACT, NumberChanges
from vlmpass.ir_tools.graph.walk import tensor_slots
from vlmpass.ir_tools.shapes import drop_facts, forget_removed, keeping_facts
from vlmpass.ir_tools.system.arguments import a_list, wrong
from vlmpass.ir_tools.system.collector import without_collector
from vlmpass.passes.instruments.instrument import Instrument, Step
from vlmpass.passes.instruments.measure import Measure
from vlmpass.passes.pipeline.base import Pass, Result, text_of
from vlmpass.passes.pipeline.needs import Provisions
from vlmpass.passes.pipeline.registry import PASSES
from vlmpass.passes.pipeline.report import RunReport

__all__ = ["PassManager"]

_MANY = 1 << 14
"""Nodes that a pass left fewer; they and their values hold each other, and only this frees them."""


class PassManager:
    """Runs passes over models.

    Args:
        passes: In order; onnx_ir passes that are no vlmpass passes run as well.
        instruments: What happens around each pass; time, memory and node counts are always taken.
        source: The model's path as it appears in the replay line of an error.
    """

    def __init__(
        self,
        passes: Sequence[ir.passes.PassBase],
        instruments: Sequence[Instrument] = (),
        *,
        source: str | None = None,
    ) -> None:
        self.passes = a_list("passes", passes, ir.passes.PassBase)  # type: ignore[type-abstract]
        self.instruments = a_list("instruments", instruments, Instrument)
        self._source = "<model>" if source is None else shlex.quote(source)

    @without_collector
    def run(self, model: ir.Model, *, in_place: bool = False) -> RunReport:
        """Run the passes.

        Args:
            model: On success it holds the result. On failure it is exactly as it was: the passes
                work on a copy, whose graph the model takes over at the end.
            in_place: Work on the model itself, which saves the copy; on failure it is left half
                changed, and a note on the error says so. For callers who drop the model then.

        Raises:
            ArgumentError: It is no ir.Model.
            CheckError: It has a cycle.
            Refused: A pass refuses; the error says which one, too.
            PassFailed: A pass, or an instrument after it, raised anything else.
        """
        if not isinstance(model, ir.Model):
            raise wrong("a pass manager", model, "an ir.Model, as `load` returns")
        refuse_cycles(model)  # passes follow values back to where they come from, and to their ends
        start = time.perf_counter()
        measure = Measure()
        slots = () if in_place else tensor_slots(model)
        names = [(slot.tensor, slot.tensor.name) for slot in slots]
        work = model if in_place else clone(model)
        try:
            work, changes = self._all(work, measure)
        except BaseException as error:
            for tensor, name in names:
                tensor.name = name  # shared with the copy, where renaming a value renames it
            if in_place:  # a note: it concerns the caller, and not who reads the message
                note = "the model that was to be changed in place is left half changed"
                vars(error).setdefault("__notes__", []).append(note)
            raise
        if work is not model:
            adopt(model, work)
        text = ",".join(text_of(each) for each in self.passes)
        return RunReport(text, tuple(measure.reports), time.perf_counter() - start, changes)

    def _all(self, model: ir.Model, measure: Measure) -> tuple[ir.Model, NumberChanges]:
        """Run every pass, and before it what it needs, if that is not there."""
        run = _Run((*self.instruments, measure), measure)
        refuse_lacking(model)  # passes look at the inputs that an operator always has
        with keeping_facts(model):
            for step, each in self._steps():
                if isinstance(each, Pass) and run.lacks_shapes(each, step, model):
                    need = ("infer", "infer", step.number, step.total)
                    replay = self._replay(step.number - 1, "infer")
                    model = run.one(Step(*need, replay, step.text), PASSES["infer"](), model)
                model = run.one(step, each, model)
        return model, run.changes

    def _steps(self) -> Iterator[tuple[Step, ir.passes.PassBase]]:
        for number, each in enumerate(self.passes, 1):
            name = each.name if isinstance(each, Pass) else type(each).__name__
            yield Step(text_of(each), name, number, len(self.passes), self._replay(number)), each

    def _replay(self, number: int, *more: str) -> str:
        """Return the command that runs the first passes, and others after them."""
        text = ",".join([*map(text_of, self.passes[:number]), *more])
        return f"vlmpass convert {self._source} --passes {shlex.quote(text)}"


class _Run:
    """Passes that run one after the other, and what holds in between.

    Args:
        instruments: What happens around each of them.
        measure: The one that reports what was left out.
    """

    def __init__(self, instruments: Sequence[Instrument], measure: Measure) -> None:
        self._instruments = instruments
        self._measure = measure
        self._settled: set[str] = set()
        self._provisions = Provisions()
        self._inferred = False
        self.changes = EXACT

    def lacks_shapes(self, each: Pass, step: Step, model: ir.Model) -> bool:
        """Whether a pass that will run needs shapes that are not there."""
        if step.text in self._settled:
            return False
        return self._provisions.lacks(each.needed(model), model)

    def one(self, step: Step, each: ir.passes.PassBase, model: ir.Model) -> ir.Model:
        """Run a pass, except one that ran already with nothing changed since."""
        idle = step.text in self._settled
        if idle or not all(each.should_run(step, model) for each in self._instruments):
            self._measure.skipped(step, model)
            return model
        before = model
        try:
            model, changed, changes = _run(step, each, model, self._instruments)
        except Refused as error:
            raise _told_so(error) if self._inferred else error from error.__cause__
        self.changes |= changes
        if changed or model is not before:
            self._note_change(each, before)
            done = self._measure.reports[-1]
            if done.nodes_before - done.nodes_after > _MANY:
                forget_removed(model)
                gc.collect()
        if isinstance(each, Pass) and each.idempotent:
            self._settled.add(step.text)
        if step.name == "infer":
            self._inferred = True
            self._provisions.provided(model)
        return model

    def _note_change(self, each: ir.passes.PassBase, before: ir.Model) -> None:
        self._settled.clear()
        self._provisions.changed()
        if not isinstance(each, Pass) or each.edits_shapes:
            self._provisions.dropped()
        if not isinstance(each, Pass) or not each.keeps_values:
            drop_facts(before)


def _run(
    step: Step, each: ir.passes.PassBase, model: ir.Model, instruments: Sequence[Instrument]
) -> tuple[ir.Model, bool, NumberChanges]:
    begun: list[Instrument] = []
    try:
        for instrument in instruments:
            instrument.before(step, model)
            begun.append(instrument)
        result = each(model)
        model = result.model
        changes = result.changes if isinstance(result, Result) else EXACT
        for instrument in begun:
            instrument.altered(step, changes)
        while begun:
            begun.pop().after(step, model, result.modified)
    except BaseException as error:
        while begun:
            begun.pop().failed(step, model, error)
        if not isinstance(error, Exception):
            raise
        raise _explained(step, error) from error
    return model, bool(result.modified), changes


def _explained(step: Step, error: Exception) -> VlmpassError:
    """Say which pass raised; a refusal stays one."""
    place = f"{step.number} of {step.total}"
    if isinstance(error, Refused):
        error.context = (f"in pass {place}, {step.text}", f"replay: {step.replay}")
        return error
    node = "" if isinstance(error, VlmpassError) else _node_at(error)
    return PassFailed(step.text, place, error, step.replay, node)


def _told_so(error: Refused) -> Refused:
    """Return a refusal that does not ask for what has been done."""
    after = error.after_infer()
    after.context = error.context
    return after


def _node_at(error: Exception) -> str:
    """Name the node that the innermost frame with a `node` was looking at when it raised."""
    found = ""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        node = frame.f_locals.get("node")
        if isinstance(node, ir.Node):
            found = f"node '{node.name or '?'}' ({node.op_type})"
    return found
