"""Runs a model piece by piece, each in a process of its own, so that models larger than memory run.

Between two pieces only what a later one needs is kept, in files, so that memory holds one piece's
weights and activations.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol, TypeAlias

import numpy as np
import onnx_ir as ir

from vlmpass.ir_tools.run.addition import NOTHING, Addition
from vlmpass.ir_tools.run.allowance import UNBOUNDED, Allowance
from vlmpass.ir_tools.run.executors import LentRunner
from vlmpass.ir_tools.run.runner import AnyRunner, RunError, Runner, tried_each
from vlmpass.ir_tools.run.segments import SEGMENT_BYTES, Segment, extract, segments
from vlmpass.ir_tools.system.executor import EXECUTOR
from vlmpass.ir_tools.system.progress import PROGRESS
from vlmpass.ir_tools.system.runtime import Optimization
from vlmpass.ir_tools.types.typing import solve
from vlmpass.ir_tools.worker.transport import Array, Feed

__all__ = ["SegmentRunner", "Watch"]


class Watch(Protocol):
    """What wants to see more of a run than the outputs."""

    def prepare(self, segment: ir.Model) -> Addition:
        """Give a segment, a copy, more outputs, or return what its graph computes besides."""

    def see(self, results: Feed) -> None:
        """Take the outputs of the segment prepared last, for one set of inputs."""


_AnyPiece: TypeAlias = Runner | LentRunner


@dataclass
class _Held:
    """The values of one set of inputs, and the runners whose files hold them."""

    values: Feed
    wanted: frozenset[str]
    last: Mapping[str, int]
    homes: dict[_AnyPiece, set[str]] = field(default_factory=dict)
    refused: RunError | None = None

    def drop_dead(self, index: int) -> None:
        dead = [n for n in self.values if self.last.get(n, -1) <= index and n not in self.wanted]
        for name in dead:
            del self.values[name]
        for names in self.homes.values():
            names.difference_update(dead)


def _listed(given: Mapping[str, Array | Sequence[Array] | None]) -> Feed:
    return {
        name: value if value is None or isinstance(value, np.ndarray) else list(value)
        for name, value in given.items()
    }


def _alone(runner: _AnyPiece, feed: Mapping[str, Array | Sequence[Array] | None]) -> Feed:
    return next(iter(runner.run_each([feed])))


class SegmentRunner(AnyRunner):
    """Runs a model piece by piece; for the rest it is like `Runner`.

    Where `running_on` an executor, the sets of inputs of a piece are run by its workers.

    Args:
        model: Its external weights are `StoredWeight` or lazy.
        budget: Bytes of weights in one piece.
        optimization: ONNX Runtime's graph optimisation level.
        allowance: What loading and running one piece may take, and when all must be done.

    Raises:
        VerifyError: The graph is not in topological order.
    """

    def __init__(
        self,
        model: ir.Model,
        *,
        budget: int = SEGMENT_BYTES,
        optimization: Optimization = "basic",
        allowance: Allowance = UNBOUNDED,
    ) -> None:
        self.peak_rss = 0
        self._allowance = allowance
        self._model = model
        self._optimization = optimization
        self._typing = solve(model)
        self.segments = segments(model, budget, self._typing)
        self._runners: list[_AnyPiece] = []
        self._executor = EXECUTOR.get()

    def run(self, inputs: Mapping[str, Array | Sequence[Array] | None]) -> Feed:
        """Return the outputs by name, as `Runner.run` does."""
        return self.run_all([inputs])[0]

    def run_all(
        self,
        feeds: Sequence[Mapping[str, Array | Sequence[Array] | None]],
        watch: Watch | None = None,
    ) -> list[Feed]:
        """Return the outputs for several sets of inputs; every segment is loaded once.

        Args:
            feeds: Arrays by input name, as `Runner.run` takes them.
            watch: Sees more than the outputs.

        Returns:
            Maps of temporary files that live as long as this runner.

        Raises:
            RunError: If ONNX Runtime refuses a segment or an input, or dies on it.
        """
        held = self._held_after(feeds, watch)
        for each in held:
            if each.refused is not None:
                raise each.refused
        return [self._outputs(each) for each in held]

    def try_each(
        self, feeds: Sequence[Mapping[str, Array | Sequence[Array] | None]]
    ) -> Iterator[Feed | RunError]:
        """Yield the outputs for each set of inputs or why it was refused; a segment loads once."""
        for each in self._held_after(feeds, None, tolerant=True):
            yield self._outputs(each) if each.refused is None else each.refused

    def _held_after(
        self,
        feeds: Sequence[Mapping[str, Array | Sequence[Array] | None]],
        watch: Watch | None,
        *,
        tolerant: bool = False,
    ) -> list[_Held]:
        """Run every segment; where that is tolerated, sets that are refused end there."""
        wanted = frozenset(str(value.name) for value in self._model.graph.outputs)
        last: dict[str, int] = {}
        for index, segment in enumerate(self.segments):
            last.update((str(value.name), index) for value in segment.inputs)
        held = [_Held(_listed(feed), wanted, last) for feed in feeds]
        told = PROGRESS.get()
        for index, segment in enumerate(self.segments):
            going = [each for each in held if each.refused is None]
            self._run_segment(segment, going, watch, tolerant=tolerant)
            for each in held:
                each.drop_dead(index)
            self._forget(held)
            if told is not None:
                told(index + 1, len(self.segments))
        return held

    def run_each(
        self, feeds: Sequence[Mapping[str, Array | Sequence[Array] | None]]
    ) -> Iterator[Feed]:
        """Yield the outputs for each set of inputs; every segment is loaded once."""
        yield from self.run_all(feeds)

    def stop(self) -> None:
        """Do nothing: between runs no process is left."""

    def close(self) -> None:
        """Remove the temporary files, the outputs among them."""
        for runner in self._runners:
            runner.close()
        self._runners.clear()

    def _run_segment(
        self, segment: Segment, held: Sequence[_Held], watch: Watch | None, *, tolerant: bool
    ) -> None:
        piece = extract(self._model, segment, self._typing)
        names = [str(value.name) for value in segment.outputs]
        more = NOTHING if watch is None else watch.prepare(piece)
        if not held or (not piece.graph.outputs and not more.outputs):
            return  # nothing that counts is computed here
        runner = self._runner_of(piece, more)
        self._runners.append(runner)
        takes = [str(value.name) for value in segment.inputs]
        feeds = [{n: each.values[n] for n in takes if n in each.values} for each in held]
        run = partial(_alone, runner)
        found = tried_each(run, feeds) if tolerant else runner.run_each(feeds)
        for each, made in zip(held, found, strict=True):
            if isinstance(made, RunError):
                each.refused, each.values = made, {}
                continue
            if watch is not None:
                watch.see(made)
            each.values.update((name, made[name]) for name in names)
            each.homes[runner] = set(names)
        self.peak_rss = max(self.peak_rss, runner.peak_rss)
        runner.stop()

    def _runner_of(self, piece: ir.Model, more: Addition) -> _AnyPiece:
        if self._executor is not None:
            return LentRunner(piece, self._executor, self._optimization, self._allowance, more)
        # Each piece runs a few times at most: laying weights out anew costs more than it saves.
        return Runner(
            piece,
            optimization=self._optimization,
            prepack=False,
            more=more,
            allowance=self._allowance,
        )

    def _forget(self, held: Sequence[_Held]) -> None:
        """Remove the files that hold nothing any more."""
        for runner in list(self._runners):
            if not any(each.homes.get(runner) for each in held):
                runner.close()
                self._runners.remove(runner)
                for each in held:
                    each.homes.pop(runner, None)

    def _outputs(self, held: _Held) -> Feed:
        outputs: Feed = {}
        for value in self._model.graph.outputs:
            name = str(value.name)
            if name in held.values:
                outputs[name] = held.values[name]
            else:
                assert value.const_value is not None  # an initializer
                outputs[name] = value.const_value.numpy()
        return outputs
