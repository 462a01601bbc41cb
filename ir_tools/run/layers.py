"""Where two models come apart: the values inside both, matched and compared in order.

What one model computes lies in files until the other one has been run, segment by segment: memory
holds one value of each.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import onnx_ir as ir

from vlmpass.ir_tools.errors import VerifyError
from vlmpass.ir_tools.graph.clone import clone
from vlmpass.ir_tools.graph.effects import EXACT, Effect, NumberChanges
from vlmpass.ir_tools.load.source import Source
from vlmpass.ir_tools.run.allowance import Allowance, bounds_of
from vlmpass.ir_tools.run.borders import match_interfaces
from vlmpass.ir_tools.run.comparison import Comparison
from vlmpass.ir_tools.run.feeds import cast_all
from vlmpass.ir_tools.run.kept_values import Judged, Kept, Layer
from vlmpass.ir_tools.run.leaving import Leaving, Watched
from vlmpass.ir_tools.run.matched import matched_values, varying_values
from vlmpass.ir_tools.run.participants import Norms, Restore, Side, let_round, side_of
from vlmpass.ir_tools.run.request import (
    EmulatedIn,
    Inputs,
    emulated_side,
    emulated_type,
    given_inputs,
)
from vlmpass.ir_tools.run.segment_runner import SegmentRunner, Watch
from vlmpass.ir_tools.run.sizes import Shapes, refuse_both
from vlmpass.ir_tools.system.arguments import callable_or_none
from vlmpass.ir_tools.worker.folder import WorkFolder
from vlmpass.ir_tools.worker.transport import Feed

__all__ = ["Layer", "LayerComparison", "compare_layers"]


@dataclass(frozen=True)
class LayerComparison:
    """All values that two models have in common, in the order in which the second makes them.

    Attributes:
        layers: The values.
        first: Index of the first that diverges; None if none does.
        leaving: The first value whose elements the narrow type that is emulated cannot hold; None
            if there is none, or nothing was emulated.
        unmatched: How many values of the second model the first has not.
        seconds: Wall time.
        closed: Normalisations that could not be looked into.
    """

    layers: tuple[Layer, ...]
    first: int | None
    leaving: Leaving | None
    unmatched: int
    seconds: float
    closed: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing that was compared diverges: outputs are another question."""
        return self.first is None


def compare_layers(
    expected: Source,
    actual: Source,
    *,
    inputs: Inputs | None = None,
    shapes: Shapes | None = None,
    seed: int = 0,
    tolerance: float | None = None,
    emulated: ir.DataType | str | None = None,
    emulated_in: EmulatedIn | None = None,
    norms: Norms | None = None,
    restore: Restore | None = None,
    allowance: Allowance | None = None,
    changes: NumberChanges = EXACT,
) -> LayerComparison:
    """Run two models on the same inputs and compare every value that both have.

    Args:
        expected: The reference: anything that `load` takes.
        actual: What is judged.
        inputs, shapes, seed, tolerance, emulated, emulated_in, norms, restore, allowance, changes:
            As for `verify`.

    Raises:
        ArgumentError: An argument is of a wrong type.
        VerifyError: They do not take the same inputs, or one of them does not run here.
    """
    rounded, where = emulated_type(emulated), emulated_side(emulated_in)
    callable_or_none("restore", restore)
    callable_or_none("norms", norms)
    bounds = bounds_of(allowance)
    refuse_both(inputs, shapes)

    def comparison(held: NumberChanges, restore: Restore | None) -> Comparison:
        sides = side_of(expected, bounds), side_of(actual, bounds)
        let_round(sides, rounded, where, norms)
        return Comparison(*sides, "basic", seed, tolerance, False, restore, held, shapes=shapes)

    plain = comparison(changes, None)
    fed = None if inputs is None else given_inputs(inputs, plain.a.model)
    found = _compared(plain, fed)
    told = "" if found.ok or restore is None else plain.a.restorable(restore)
    if not told:
        return found
    held = changes | NumberChanges((Effect.RESTORES,), told)
    exact = _compared(comparison(held, restore), fed)
    return exact if exact.ok else found


def _compared(compared: Comparison, fed: Feed | None) -> LayerComparison:
    start = time.perf_counter()
    a, b = compared.a, compared.b
    bound = compared.choose_arithmetic()
    pairs = matched_values(a.model, b.model)
    every = len(varying_values(b.model))
    if not pairs:
        return LayerComparison((), None, None, every, time.perf_counter() - start)
    with ExitStack() as stack:
        folder = WorkFolder()
        stack.callback(folder.remove)
        feeds = _feeds(stack, compared, fed)
        kept = Kept(folder.path, [*pairs.values()])
        of_a = _run(stack, a, feeds, kept)
        seen = Judged(b.model, pairs, kept, compared.tolerance, bound)
        leaving = _run(stack, b, feeds, seen) or of_a
    layers = seen.layers()
    wrong = (index for index, each in enumerate(layers) if not each.difference.ok)
    first, seconds = next(wrong, None), time.perf_counter() - start
    return LayerComparison(
        layers, first, leaving, every - len(layers), seconds, (*a.closed, *b.closed)
    )


def _feeds(stack: ExitStack, compared: Comparison, fed: Feed | None) -> list[Feed]:
    findings: list[str] = []
    pinned = match_interfaces(compared.a.model, compared.b.model, findings)
    inputs = [each for each in findings if each.startswith("input")]
    if inputs:
        raise VerifyError("; ".join(inputs), remedy="compare models that take the same")
    runner = stack.enter_context(compared.a.open("basic"))
    feeds = [each.fed for each in compared.expected(runner, fed, pinned)]
    runner.stop()
    return feeds


def _run(stack: ExitStack, side: Side, feeds: Sequence[Feed], watch: Watch) -> Leaving | None:
    """Run a model; return what leaves the range of the type that is emulated in it."""
    model = clone(side.twin if side.changed else side.model)
    watched = None if side.emulated is None else Watched(watch, model, side.emulated)
    runner = SegmentRunner(model, allowance=side.allowance)
    stack.callback(runner.close)
    runner.run_all([cast_all(each, side.takes()) for each in feeds], watched or watch)
    runner.close()
    return None if watched is None else watched.first(side.model)
