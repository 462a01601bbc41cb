"""Do two models compute the same? Both run on the same generated inputs, at two sizes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace

import onnx_ir as ir

from vlmpass.ir_tools.check.structure import refuse_cycles
from vlmpass.ir_tools.errors import VerifyError
from vlmpass.ir_tools.graph.effects import EXACT, Effect, NumberChanges
from vlmpass.ir_tools.load.source import Source
from vlmpass.ir_tools.operators.dtypes import end_of
from vlmpass.ir_tools.run.allowance import Allowance, bounds_of
from vlmpass.ir_tools.run.attempts import Ran, Tried
from vlmpass.ir_tools.run.borders import match_interfaces
from vlmpass.ir_tools.run.choices import strayed
from vlmpass.ir_tools.run.compare import OutputDifference, compare, tolerance_for, worse
from vlmpass.ir_tools.run.culprit import retold
from vlmpass.ir_tools.run.feeds import cast_all, is_finite, rounded
from vlmpass.ir_tools.run.inputs import InputPlan
from vlmpass.ir_tools.run.participants import (
    Norms,
    Restore,
    Side,
    cast_to,
    computed_in,
    refuse_other_draws,
    sides_of,
)
from vlmpass.ir_tools.run.ranges import overflows
from vlmpass.ir_tools.run.request import Inputs, Value, emulated_type, given_inputs, level, runtime
from vlmpass.ir_tools.run.runner import AnyRunner, RunError
from vlmpass.ir_tools.run.second_looks import by_the_standard, unoptimized
from vlmpass.ir_tools.run.segment_runner import SegmentRunner
from vlmpass.ir_tools.run.sizes import Shapes, refuse_both, sizes_given
from vlmpass.ir_tools.run.torch_program import Module, is_module
from vlmpass.ir_tools.run.verdict import Trial, Verification
from vlmpass.ir_tools.system.arguments import callable_or_none, flag, number, seconds, wrong
from vlmpass.ir_tools.system.runtime import Optimization, Runtime
from vlmpass.ir_tools.worker.transport import Feed

__all__ = ["Comparison", "verify"]

# Kernels keep in float32 what they compute between; where every value is rounded, more is lost.
_EMULATED = 2.0
_ROUNDS = frozenset({Effect.ROUNDS_VALUES, Effect.ROUNDS_CONSTANTS})
_F16, _BF16 = ir.DataType.FLOAT16, ir.DataType.BFLOAT16


def verify(
    expected: Source | Module,
    actual: Source | Module,
    *,
    inputs: Inputs | None = None,
    shapes: Shapes | None = None,
    seed: int = 0,
    tolerance: float | None = None,
    optimization: Optimization | None = None,
    as_is: bool = False,
    emulated: ir.DataType | str | None = None,
    on: Runtime = "onnxruntime",
    hard: bool = False,
    norms: Norms | None = None,
    restore: Restore | None = None,
    allowance: Allowance | None = None,
    changes: NumberChanges = EXACT,
) -> Verification:
    """Run two models on the same inputs and compare their outputs.

    The inputs are generated from the first model, at two sizes of every dynamic dimension; an
    assignment of sizes that the first model refuses says nothing and is replaced by another.
    bfloat16, which ONNX Runtime's CPU cannot compute in, is computed in float32, and so is float16
    where the second model no longer computes in it. Two bfloat16 models are held to the tolerance
    of float16. Where numbers are exact again in the second which the first has rounded to a narrow
    type, the tolerance is of that type; then they are restored in the first too, and both are
    compared once more without it. The tolerance is a half precision's, too, where only the
    second casts to it, or the first does not as it is computed, even if nothing computes in it.

    Args:
        expected: The reference: anything that `load` takes, or a PyTorch module. A module is given
            the inputs of the other model, as arguments of their names or else by place.
        actual: What is judged; a module, too, where the reference is none.
        inputs: The user's own inputs, used instead of generated ones: arrays by name, or an
            ``.npz`` file.
        shapes: Sizes of the generated inputs: by dimension, or shapes by input.
        seed: Of the generated inputs.
        tolerance: Largest relative error of floating-point outputs; by default that of the
            narrowest type either model computes in, and twice that for an emulated one.
        optimization: ONNX Runtime's graph optimisation level; by default ``basic``, and where
            models differ then, ``none`` before it is said: the runtime's own rewriting may differ.
        as_is: Whether ONNX Runtime must run the second model as it is, or it does not count.
        emulated: FLOAT16 or BFLOAT16: every value of that type in the second model is rounded, as
            hardware does that computes in it, and the first is computed in float32. ONNX Runtime's
            CPU hides overflow, because it rounds only where it must.
        on: What runs the second model as it is: ``openvino``, with the numbers of float32 where it
            might take fewer, ``iree`` or ``ort-web-wasm``; what it does not run counts as
            different.
        hard: Whether generated inputs include what is hard on narrow types: long sequences, rows
            that are masked throughout, large activations.
        norms: Spells the normalisations of an emulated type in operators of that type, for hardware
            that has no wider one inside; by default they compute in float32, as the standard lets
            them.
        restore: Restores rounded numbers of a model that computes in float32, and tells which. Two
            models that differ are compared so as well.
        allowance: What running each model may take; by default `default_memory`, and no bound of
            time.
        changes: What was done to numbers from the first to the second, as a report has it. Where
            values or constants were rounded to a narrow type, as the first rounds them when it
            runs, the tolerance is of that type; by default nothing was.

    Raises:
        ArgumentError: An argument is of a wrong type.
        RunError: If a model takes more than it may.
        CheckError: If the first model has a cycle.
        VerifyError: If the first model cannot be run here, or on no input set, or the second has
            nothing of the emulated type.
        Refused: If the second is to be emulated and not well typed.
    """
    seed, tolerance = number("seed", seed, 0) or 0, seconds("tolerance", tolerance)
    as_is = flag("as_is", as_is)
    optimization, rounded_type = level(optimization), emulated_type(emulated)
    callable_or_none("restore", restore)
    callable_or_none("norms", norms)
    elsewhere = _is_elsewhere(on, rounded_type, actual)
    if not isinstance(changes, NumberChanges):
        raise wrong("changes", changes, "NumberChanges")
    bounds = bounds_of(allowance)
    refuse_both(inputs, shapes)
    fed = None
    if inputs is not None:
        fed = given_inputs(inputs, sides_of(expected, actual, bounds)[0].model)

    def comparison(level: Optimization, held: NumberChanges, restore: Restore | None) -> Comparison:
        sides = sides_of(expected, actual, bounds)
        sides[1].emulated, sides[1].norms, sides[1].runtime = rounded_type, norms, on
        whole = as_is or elsewhere
        return Comparison(*sides, level, seed, tolerance, whole, restore, held, hard, shapes)

    def run(held: NumberChanges, restore: Restore | None = None) -> tuple[Verification, Comparison]:
        compared = comparison(optimization or "basic", held, restore)
        found = compared.run(fed)
        if elsewhere:
            return found, compared
        if optimization is None and not found.ok and not found.findings:
            found = unoptimized(found, comparison("none", held, restore), fed)
        if not found.ok and not found.findings and compared.a.program is None:
            found = by_the_standard(found, comparison("none", held, restore), fed)
        return found, compared

    plain = changes.without(Effect.ROUNDS_CONSTANTS)
    found, compared = run(plain)
    if found.findings or (not found.ok and not compared.a.widened):
        return found
    if not found.ok and plain != changes:
        found, _ = run(changes)
    if restore is None or tolerance is not None:
        return found
    if Effect.RESTORES in changes.effects:
        return run(plain, restore)[0] if found.ok else found
    return found if found.ok else _with_restored(found, compared, restore, plain, run)


def _is_elsewhere(on: object, emulated: ir.DataType | None, judged: object) -> bool:
    """Whether another runtime than ONNX Runtime is to run the second model, as it is."""
    found = runtime("on", on)
    if is_module(judged) and (emulated is not None or found != "onnxruntime"):
        raise VerifyError("a module is run by PyTorch, and nothing in it can be rounded")
    if found != "onnxruntime" and emulated is not None:
        raise VerifyError(f"what is emulated runs on ONNX Runtime, and {found} is to run it")
    return found != "onnxruntime"


def _with_restored(
    found: Verification,
    compared: Comparison,
    restore: Restore,
    plain: NumberChanges,
    run: Callable[[NumberChanges, Restore | None], tuple[Verification, Comparison]],
) -> Verification:
    """Return a comparison with numbers restored in the first model, where that finds them equal.

    As they are, the models must be equal to the tolerance of the type that they were rounded to.
    """
    told = compared.a.restorable(restore)
    if not told:
        return found
    held = plain | NumberChanges((Effect.RESTORES,), told)
    if not run(held, None)[0].ok:
        return found
    exact = run(held, restore)[0]
    note = f"equal with numbers restored in the reference: {told}"
    return replace(exact, notes=(*exact.notes, note)) if exact.ok else found


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
        if self.b.emulated is not None:
            _ = self.b.twin  # what cannot be emulated is refused before anything runs
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
        emulated = self.b.emulated
        narrow = {_BF16} | ({_F16} if _F16 not in b or emulated is not None else set())
        self.a.widened = frozenset(a & narrow) if self.a.program is None else frozenset()
        fixed = self.as_is or self.b.program is not None
        self.b.widened = frozenset() if fixed else frozenset(b & {_BF16}) - {emulated}
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
        return bound if emulated is None else _EMULATED * bound

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
            made = runner.run(fed)
            yield Ran(Trial({}, is_finite(made)), fed, made)
            return
        plan, largest = InputPlan(self.a.model, empties=True), self._largest()
        sizes = sizes_given(self.shapes, plan.dimensions, pinned)
        tried = Tried(plan, runner.run, self._adapt, self.seed, sizes, largest)
        yield from tried.plausible()
        if not isinstance(runner, SegmentRunner):  # which loads every weight for each of them
            yield from tried.sides()
        if self.hard:
            yield from tried.hard()

    def _largest(self) -> float:
        """Return the end of the emulated type's range if the second model gives outputs of it."""
        outputs = {value.dtype for value in self.b.model.graph.outputs}
        emulated = self.b.emulated
        return end_of(emulated) if emulated is not None and emulated in outputs else math.inf

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
            self._note_overflow(feeds)
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

    def _note_overflow(self, feeds: Sequence[Feed]) -> None:
        """Say where an emulated type first proved too narrow."""
        dtype = self.b.emulated
        found = overflows(self.b.twin, feeds, dtype) if dtype is not None else {}
        if dtype is None or not found:
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
