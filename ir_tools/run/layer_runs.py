"""Two models run one after the other, the values inside the second compared with the first's."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from vlmpass.ir_tools.errors import VerifyError
from vlmpass.ir_tools.graph.clone import clone
from vlmpass.ir_tools.run.borders import match_interfaces
from vlmpass.ir_tools.run.comparison import Comparison
from vlmpass.ir_tools.run.feeds import cast_all
from vlmpass.ir_tools.run.kept_values import Judged, Kept, Layer
from vlmpass.ir_tools.run.leaving import Leaving, Watched
from vlmpass.ir_tools.run.matched import matched_values
from vlmpass.ir_tools.run.participants import Side
from vlmpass.ir_tools.run.segment_runner import SegmentRunner, Watch
from vlmpass.ir_tools.worker.transport import Feed

__all__ = ["Inside", "feeds_of", "of_models", "run_watched"]


class Inside(NamedTuple):
    """What was found inside, see `LayerComparison`."""

    layers: tuple[Layer, ...] = ()
    leaving: Leaving | None = None
    apart: tuple[str, ...] = ()


def of_models(
    stack: ExitStack, compared: Comparison, fed: Feed | None, bound: float, folder: Path
) -> Inside:
    """Compare the values that two models have in common.

    Args:
        stack: Closes what was opened.
        compared: The two.
        fed: The user's own inputs; None for generated ones.
        bound: What is allowed of each value, see `compare_arrays`.
        folder: Where values are kept.
    """
    a, b = compared.a, compared.b
    pairs = matched_values(a.model, b.model)
    if not pairs:
        return Inside()
    feeds = feeds_of(stack, compared, fed)
    kept = Kept(folder, [*pairs.values()])
    of_a = run_watched(stack, a, feeds, kept)
    seen = Judged(b.model, pairs, kept, compared.tolerance, bound)
    leaving = run_watched(stack, b, feeds, seen) or of_a
    return Inside(seen.layers(), leaving)


def feeds_of(stack: ExitStack, compared: Comparison, fed: Feed | None) -> list[Feed]:
    """Return the inputs on which two models are compared.

    Args:
        stack: Closes what was opened.
        compared: The two.
        fed: The user's own inputs; None for generated ones.

    Raises:
        VerifyError: They do not take the same, or the first does not run on any.
    """
    findings: list[str] = []
    pinned = match_interfaces(compared.a.model, compared.b.model, findings)
    inputs = [each for each in findings if each.startswith("input")]
    if inputs:
        raise VerifyError("; ".join(inputs), remedy="compare models that take the same")
    runner = stack.enter_context(compared.a.open("basic"))
    feeds = [each.fed for each in compared.expected(runner, fed, pinned)]
    runner.stop()
    return feeds


def run_watched(
    stack: ExitStack, side: Side, feeds: Sequence[Feed], watch: Watch
) -> Leaving | None:
    """Run a model; return what leaves the range of the type that is emulated in it.

    Args:
        stack: Closes what was opened.
        side: The model, and how it is computed.
        feeds: Sets of inputs.
        watch: Sees the values inside.

    Raises:
        RunError: It does not take the inputs.
    """
    model = clone(side.twin if side.changed else side.model)
    watched = None if side.emulated is None else Watched(watch, model, side.emulated)
    runner = SegmentRunner(model, allowance=side.allowance)
    stack.callback(runner.close)
    runner.run_all([cast_all(each, side.takes()) for each in feeds], watched or watch)
    runner.close()
    return None if watched is None else watched.first(side.model)
