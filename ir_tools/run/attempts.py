"""Input sets that a model accepts, the plausible ones and then those that are hard on narrow types.

What generated inputs are valid only the model can say: each is tried, and the first accepted one of
every kind counts.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

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
        run: Runs it on several sets, see `AnyRunner.try_each`.
        adapt: Makes what is fed of what was generated.
        seed: Of the inputs.
        pinned: Sizes by symbol that are given.
        largest: What the outputs can hold; inputs that are hard, and too large for that, say
            nothing of what happens inside.
        at_once: Whether sets of all kinds are run together, because each run loads the weights.
    """

    plan: InputPlan
    run: Callable[[Sequence[Feed]], Iterable[Feed | RunError]]
    adapt: Adapt
    seed: int = 0
    pinned: Mapping[str, int] | None = None
    largest: float = math.inf
    at_once: bool = False

    def plausible(self) -> Iterator[Ran]:
        """Yield what is accepted at each of two sizes.

        Raises:
            VerifyError: Nothing is.
            RunError: The model itself fails, or takes more than it may.
        """
        last: list[RunError] = []
        found = False
        sizes = range(SIZES if self.plan.dimensions.names else 1)
        kinds = (("", self.plan.attempts(size, self.seed, self.pinned)) for size in sizes)
        for ran in self._accepted(kinds, last):
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
        few = ((kind, itertools.islice(each, _HARD_ATTEMPTS)) for kind, each in kinds)
        for ran in self._accepted(few, []):
            if ran.trial.finite and largest_of(ran.made) <= self.largest:
                yield ran

    def _accepted(
        self, kinds: Iterable[tuple[str, Iterator[Attempt]]], refused: list[RunError]
    ) -> Iterator[Ran]:
        """Yield the best of each kind that is accepted."""
        groups = [[*kinds]] if self.at_once else ([each] for each in kinds)
        for group in groups:
            searches = [_Search(*each) for each in group]
            while asked := [each for each in searches if each.advance()]:
                feeds = [self.adapt(each.attempt.inputs) for each in asked]
                for search, fed, made in zip(asked, feeds, self.run(feeds), strict=True):
                    if isinstance(made, RunError):
                        refused.append(made)
                    else:
                        search.take(fed, made)
            yield from (each.best for each in searches if each.best is not None)


@dataclass
class _Search:
    """The first accepted attempt of a kind, finite if the same sizes allow it."""

    kind: str
    attempts: Iterator[Attempt]
    best: Ran | None = None
    attempt: Attempt = field(init=False)

    def advance(self) -> bool:
        """Go to the next attempt; return whether it is to be tried."""
        attempt = next(self.attempts, None) if self._open() else None
        if attempt is None or (self.best is not None and self.best.trial.dims != attempt.dims):
            return False
        self.attempt = attempt
        return True

    def _open(self) -> bool:
        # Without padding, the same sizes may give finite values.
        return self.best is None or not self.best.trial.finite

    def take(self, fed: Feed, made: Feed) -> None:
        """Take what was accepted."""
        if self.best is None or is_finite(made):
            self.best = Ran(Trial(self.attempt.dims, is_finite(made), self.kind), fed, made)
