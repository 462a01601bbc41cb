"""Input sets that a model accepts, the plausible ones and then those that are hard on narrow types.

What generated inputs are valid only the model can say: each is tried, and the first accepted one of
every kind counts.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from vlmpass.ir_tools.errors import VerifyError
from vlmpass.ir_tools.run.dims import SIZES
from vlmpass.ir_tools.run.feeds import is_finite, largest_of
from vlmpass.ir_tools.run.inputs import Attempt, InputPlan
from vlmpass.ir_tools.run.runner import RunError
from vlmpass.ir_tools.run.verdict import Trial
from vlmpass.ir_tools.worker.transport import Array, Feed

__all__ = ["Ran", "Tried"]

_HARD_ATTEMPTS = 6

Adapt = Callable[[Mapping[str, "Array | Sequence[Array] | None"]], Feed]


@dataclass(frozen=True)
class Ran:
    """A set of inputs that was accepted.

    Attributes:
        trial: What it was.
        fed: The inputs.
        made: The outputs.
    """

    trial: Trial
    fed: Feed
    made: Feed


@dataclass
class Tried:
    """Runs the input sets of a plan through a model.

    Attributes:
        plan: How to feed the model.
        run: Runs it; a `RunError` refuses the inputs.
        adapt: Makes what is fed of what was generated.
        seed: Of the inputs.
        pinned: Sizes by symbol that are given.
        largest: What the outputs can hold; inputs that are hard, and too large for that, say
            nothing of what happens inside.
    """

    plan: InputPlan
    run: Callable[[Feed], Feed]
    adapt: Adapt
    seed: int = 0
    pinned: Mapping[str, int] | None = None
    largest: float = math.inf

    def plausible(self) -> Iterator[Ran]:
        """Yield what is accepted at each of two sizes.

        Raises:
            VerifyError: Nothing is.
            RunError: The model itself fails, or takes more than it may.
        """
        last: list[RunError] = []
        found = False
        for size in range(SIZES if self.plan.dimensions.names else 1):
            ran = self._best(self.plan.attempts(size, self.seed, self.pinned), last)
            if ran is not None:
                found = True
                yield ran
        if found:
            return
        if last and last[-1].is_stop:
            raise last[-1]
        raise VerifyError(
            "the reference model accepts none of the generated inputs"
            + (f"; last: {last[-1]}" if last else ""),
            remedy="give inputs with --inputs file.npz",
        )

    def sides(self) -> Iterator[Ran]:
        """Yield what is accepted of other sides of plausible inputs, where it stays finite.

        A runtime that dies on one, as on nothing in a cache, says nothing of the others.

        Raises:
            RunError: It takes more time than it may.
        """
        try:
            yield from self._finite(self.plan.sides(self.seed, self.pinned))
        except RunError as error:
            if error.stage != "crash":
                raise

    def hard(self) -> Iterator[Ran]:
        """Yield what is accepted of each hard kind, where it stays finite in float32.

        Raises:
            RunError: The model itself fails, or takes more time than it may.
        """
        yield from self._finite(self.plan.hard(self.seed, self.pinned))

    def _finite(self, kinds: Iterable[tuple[str, Iterator[Attempt]]]) -> Iterator[Ran]:
        for kind, attempts in kinds:
            few = itertools.islice(attempts, _HARD_ATTEMPTS)
            ran = self._best(few, [], kind)
            if ran is not None and ran.trial.finite and largest_of(ran.made) <= self.largest:
                yield ran

    def _best(
        self, attempts: Iterator[Attempt], refused: list[RunError], kind: str = ""
    ) -> Ran | None:
        """Return the first accepted attempt, finite if the same sizes allow it."""
        best: Ran | None = None
        for attempt in attempts:
            if best is not None and (best.trial.finite or best.trial.dims != attempt.dims):
                break  # without padding, the same sizes may give finite values
            fed = self.adapt(attempt.inputs)
            try:
                made = self.run(fed)
            except RunError as error:
                if error.stage in ("load", "crash", "time"):
                    raise
                refused.append(error)
                continue
            if best is None or is_finite(made):
                best = Ran(Trial(attempt.dims, is_finite(made), kind), fed, made)
        return best
