"""One comparison of two models: what each computes in, what they are fed, and what is told."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field

import onnx_ir as ir

from vlmpass.ir_tools.check.structure import refuse_cycles
from vlmpass.ir_tools.errors import VerifyError
from vlmpass.ir_tools.graph.effects import EXACT, Effect, NumberChanges
from vlmpass.ir_tools.operators.dtypes import end_of
from vlmpass.ir_tools.run.attempts import Ran, Tried
from vlmpass.ir_tools.run.borders import match_interfaces
from vlmpass.ir_tools.run.choices import strayed
from vlmpass.ir_tools.run.compare import OutputDifference, compare, tolerance_for, worse
from vlmpass.ir_tools.run.culprit import retold
from vlmpass.ir_tools.run.feeds import cast_all, is_finite, rounded
from vlmpass.ir_tools.run.inputs import InputPlan
from vlmpass.ir_tools.run.participants import (
    Restore,
    Side,
    cast_to,
    computed_in,
    refuse_other_draws,
)
from vlmpass.ir_tools.run.ranges import overflows
from vlmpass.ir_tools.run.request import Value
from vlmpass.ir_tools.run.runner import AnyRunner, RunError
from vlmpass.ir_tools.run.segment_runner import SegmentRunner
from vlmpass.ir_tools.run.sizes import Shapes, sizes_given
from vlmpass.ir_tools.run.verdict import Trial, Verification
from vlmpass.ir_tools.system.runtime import Optimization
from vlmpass.ir_tools.worker.transport import Feed

__all__ = ["Comparison"]

# Kernels keep in float32 what they compute between; where every value is rounded, more is lost.
_EMULATED = 2.0
_ROUNDS = frozenset({Effect.ROUNDS_VALUES, Effect.ROUNDS_CONSTANTS})
_F16, _BF16 = ir.DataType.FLOAT16, ir.DataType.BFLOAT16


def _retold(side: Side, refused: RunError) -> RunError:
    return retold(side.twin if side.changed else side.model, refused, side.allowance)


@dataclass
class Comparison:
    """One comparison of two models, at one optimisation level.

    Attributes:
        a: The reference.
        b: What is judged.
        optimization: ONNX Runtime's level.
        seed, tolerance, as_is, restore, hard, shapes: As for `verify`.
        held: What was done to numbers, as its ``changes``.
        findings, notes, causes: What is told of it, see `Verification`.
    """

    a: Side
    b: Side
    optimization: Optimization
    seed: int
    tolerance: float | None
    as_is: bool
    restore: Restore | None = None
    held: NumberChanges = EXACT
    hard: bool = False
    shapes: Shapes | None = None
    findings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    causes: list[str] = field(default_factory=list)

    def run(self, given: Mapping[str, Value] | None) -> Verification:
        """Compare the outputs, for the inputs given or generated ones."""
        start = time.perf_counter()
        pinned = match_interfaces(self.a.model, self.b.model, self.findings)
        bound = self.choose_arithmetic()
        for side in (self.a, self.b):
            if side.emulated is not None:
                _ = side.twin  # what cannot be emulated is refused before anything runs
        trials: list[Trial] = []
        outputs: tuple[OutputDifference, ...] = ()
        if not self.findings:
            with ExitStack() as stack:
                a = stack.enter_context(self.a.open(self.optimization))
                if self.a.refused is not None:
                    refuse_cycles(self.a.model)
                    self.notes.append(f"the reference: {_retold(self.a, self.a.refused)}")
                ran = list(self.expected(a, given, pinned))
                a.stop()
                trials = [each.trial for each in ran]
                self._note_coverage(trials, given is not None)
                outputs = self._compare(stack, ran, bound)
        ok = not self.findings and bool(outputs) and all(output.ok for output in outputs)
        return Verification(
            ok,
            self.a.how,
            self.b.how,
            tuple(trials),
            outputs,
            tuple(self.findings),
            tuple(self.notes),
            tuple(self.causes),
            time.perf_counter() - start,
            self.seed if given is None else None,
        )

    def choose_arithmetic(self) -> float:
        """Decide what is computed in float32, and return the tolerance."""
        a, b = computed_in(self.a.model), computed_in(self.b.model)
        rounds = {self.a.emulated, self.b.emulated} - {None}
        narrow = {_BF16} | ({_F16} if _F16 not in b or rounds else set())
        wide = frozenset(a & narrow) - {self.a.emulated}
        self.a.widened = wide if self.a.program is None else frozenset()
        fixed = self.as_is or self.b.program is not None
        self.b.widened = frozenset() if fixed else frozenset(b & {_BF16}) - {self.b.emulated}
        if self.tolerance is not None:
            return self.tolerance
        both = self.a.widened & self.b.widened
        left = (a - self.a.widened) | (b - both)
        if both:
            left |= {_F16}  # no value is rounded, but constants of new nodes are
        left |= cast_to(self.b.model) - (cast_to(self.a.model) - self.a.widened)
        if not self._same_numbers() or _ROUNDS & {*self.held.effects}:
            # Its numbers were rounded to these types and no longer are, or some of its values are.
            left |= self.a.widened
        bound = tolerance_for(*(dtype.numpy().name for dtype in left))
        return _EMULATED * bound if rounds else bound

    def _same_numbers(self) -> bool:
        """Whether numbers that the second model has exact are not, or no longer, rounded."""
        if Effect.RESTORES not in self.held.effects or not self.a.widened:
            return True
        return self.restore is not None and self.a.restores(self.restore, self.held.restored)

    def expected(
        self,
        runner: AnyRunner,
        given: Mapping[str, Value] | None,
        pinned: Mapping[str, int],
    ) -> Iterator[Ran]:
        """Yield what the reference computes.

        Args:
            runner: Runs it.
            given: The user's own inputs; None for generated ones.
            pinned: Sizes by symbol that the second model fixes.
        """
        if given is not None:
            fed = self._adapt(given)
            made = runner.run(cast_all(fed, self.a.takes()))
            yield Ran(Trial({}, is_finite(made)), fed, made)
            return

        def run(feeds: Sequence[Feed]) -> Iterator[Feed | RunError]:
            return runner.try_each([cast_all(each, self.a.takes()) for each in feeds])

        plan, largest = InputPlan(self.a.model, empties=True), self._largest()
        sizes = sizes_given(self.shapes, plan.dimensions, pinned)
        at_once = isinstance(runner, SegmentRunner)  # which loads every weight for each run
        tried = Tried(plan, run, self._adapt, self.seed, sizes, largest, at_once)
        yield from tried.plausible()
        yield from tried.sides()
        if self.hard:
            yield from tried.hard()

    def _largest(self) -> float:
        """Return the end of the emulated type's range if a model that is rounded gives it out."""
        return min(
            (
                end_of(side.emulated)
                for side in (self.a, self.b)
                if side.emulated is not None
                and side.emulated in {value.dtype for value in side.model.graph.outputs}
            ),
            default=math.inf,
        )

    def _adapt(self, feed: Mapping[str, Value]) -> Feed:
        """Round floating-point inputs to what both models' input types can hold."""
        types = {value.name: value.dtype for value in self.b.model.graph.inputs}
        return {name: rounded(value, types.get(name)) for name, value in feed.items()}

    def _compare(
        self, stack: ExitStack, ran: Sequence[Ran], bound: float
    ) -> tuple[OutputDifference, ...]:
        try:
            b = stack.enter_context(self.b.open(self.optimization))
        except VerifyError as error:
            if isinstance(error, RunError) and error.is_stop:
                raise
            self.findings.append(str(error))
            return ()
        refuse_other_draws(self.a, self.b)
        refused = self.b.refused
        lost = self.a.refused is None and refused is not None and not refused.is_limit
        if refused is not None and (self.as_is or lost):
            self.findings.append(str(_retold(self.b, refused)))
        elif refused is not None:
            self.notes.append(f"the result: {_retold(self.b, refused)}")
        types = self.b.takes()
        worst: dict[str, OutputDifference] = {}
        feeds = [cast_all(each.fed, types) for each in ran]
        try:
            for each, outputs in zip(ran, b.run_each(feeds), strict=True):
                found = compare(each.made, outputs, tolerance=self.tolerance, at_least=bound)
                for difference in found:
                    held = worst.get(difference.name)
                    worst[difference.name] = worse(held, difference) if held else difference
        except RunError as error:
            if error.is_stop:
                raise
            self.findings.append(f"{error} (the reference accepts the same inputs)")
        if any(sum(each.nan) + sum(each.inf) and not each.ok for each in worst.values()):
            self._note_overflow(self.a, [each.fed for each in ran])
            self._note_overflow(self.b, feeds)
        seen = self.b.runtime == "onnxruntime" and not (self.a.program or self.b.program)
        if seen and not all(each.ok for each in worst.values()):
            self._note_choices([(each.fed, feed) for each, feed in zip(ran, feeds, strict=True)])
        return tuple(worst.values())

    def _note_choices(self, feeds: Sequence[tuple[Feed, Feed]]) -> None:
        """Say where the second model first picks other elements than the first."""
        a, b = (each.twin if each.changed else each.model for each in (self.a, self.b))
        with suppress(VerifyError):  # what differs was found, and this only says why
            told = strayed(a, b, feeds, self.b.allowance)
            self.causes += [told] if told else []

    def _note_overflow(self, side: Side, feeds: Sequence[Feed]) -> None:
        """Say where an emulated type first proved too narrow."""
        dtype = side.emulated
        if dtype is None:
            return
        found = overflows(side.twin, [cast_all(each, side.takes()) for each in feeds], dtype)
        if not found:
            return
        name, top = next(iter(found.items()))
        size = f"reaches {top:.3g}" if math.isfinite(top) else "overflows"
        more = f"; so do {len(found) - 1} values after it" if len(found) > 1 else ""
        self.notes.append(f"'{name}' {size}, beyond {dtype.name.lower()}'s range{more}")

    def _note_coverage(self, ran: Sequence[Trial], given: bool) -> None:
        trials = [trial for trial in ran if not trial.hard]
        if any(not trial.finite for trial in trials):
            self.notes.append("the reference itself gives NaN or infinite values")
        if given:
            return
        names = trials[0].dims if trials else {}
        single = [name for name in names if len({trial.dims[name] for trial in trials}) == 1]
        if single:
            sizes = ", ".join(f"{name}={trials[0].dims[name]}" for name in single)
            self.notes.append(f"ran at one size only: {sizes}")
