"""Between which numbers values of a model lie when it runs: all of them, most, or the telling ones.

The model runs in segments, so that it may be larger than memory; what is watched comes in files.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from vlmpass.ir_tools.errors import VerifyError
from vlmpass.ir_tools.run.addition import NOTHING, Addition
from vlmpass.ir_tools.run.kept_values import shown
from vlmpass.ir_tools.run.segment_runner import SegmentRunner
from vlmpass.ir_tools.run.segments import SEGMENT_BYTES
from vlmpass.ir_tools.worker.transport import Array, Feed

__all__ = ["Method", "Span", "Watched", "spans", "watch_values"]

Method = Literal["min-max", "percentile", "entropy"]
_BINS = 2048
"""Of a histogram."""
_LEVELS = 128
"""Numbers of 8 bits on one side of zero."""
_STRIDE = 16
"""Bins between ranges that are tried."""

_Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Span:
    """Where the elements of a value lie.

    Attributes:
        low: The least that counts.
        high: The greatest that counts.
    """

    low: float
    high: float


@dataclass
class Watched:
    """Hands the arrays of some values on, run by run.

    Attributes:
        names: Of the values.
        take: Gets each name and array.
        over: Gets the names of those of which all arrays were handed on.
        here: Names of those that the segment makes which runs now.
    """

    names: Collection[str]
    take: Callable[[str, Array], None]
    over: Callable[[Collection[str]], None] = lambda names: None
    here: list[str] = field(default_factory=list)

    def prepare(self, segment: ir.Model) -> Addition:
        """Add those that a segment makes to its outputs."""
        self.over(self.here)
        self.here = shown(segment, self.names)
        return NOTHING

    def see(self, results: Feed) -> None:
        """Take them."""
        self.see_some(results, self.here)

    def see_some(self, arrays: Feed, names: Collection[str]) -> None:
        """Take some of what is there, if it has elements."""
        for name in names:
            found = arrays.get(name)
            if isinstance(found, np.ndarray) and found.size:
                self.take(name, found)


def spans(
    model: ir.Model,
    names: Collection[str],
    feeds: Sequence[Feed],
    method: Method = "min-max",
    percentile: float = 99.999,
    budget: int = SEGMENT_BYTES,
) -> dict[str, Span]:
    """Return where floating-point values of the main graph lie, by name.

    Args:
        model: A model that ONNX Runtime's CPU runs; it is not changed.
        names: Of inputs of the model, or of what its nodes make; of others nothing is returned.
        feeds: Inputs, one run each.
        method: All elements count; or that percentage of them, as many left out on either side; or
            those that 8 bits tell the most of, by the entropy of their histogram.
        percentile: The percentage.
        budget: Bytes of weights in memory at a time.

    Raises:
        VerifyError: ONNX Runtime is missing or does not run the model, or a value is not finite.
    """
    ends: dict[str, Span] = {}

    def widen(name: str, array: Array) -> None:
        low, high = float(array.min()), float(array.max())
        if not np.isfinite([low, high]).all():
            raise VerifyError(
                f"value '{name}' is not finite on the inputs that ranges are measured with",
                remedy="give other inputs, or exclude the products that take it",
            )
        held = ends.get(name, Span(low, high))
        ends[name] = Span(min(low, held.low), max(high, held.high))

    watch_values(model, Watched(names, widen), feeds, budget)
    if method == "min-max":
        return ends
    counts = {name: np.zeros(_BINS, np.int64) for name in ends}
    cut = _signed if method == "percentile" else _sizes

    def count(name: str, array: Array) -> None:
        counts[name] += cut(array, ends[name])

    watch_values(model, Watched(list(ends), count), feeds, budget)
    if method == "percentile":
        return {name: _inner(counts[name], ends[name], percentile) for name in ends}
    return {name: _telling(counts[name], ends[name]) for name in ends}


def watch_values(
    model: ir.Model, watch: Watched, feeds: Sequence[Feed], budget: int = SEGMENT_BYTES
) -> None:
    """Run a model in segments, and show values of its main graph to who watches them.

    Args:
        model: A model that ONNX Runtime's CPU runs; it is not changed.
        watch: Who.
        feeds: Inputs, one run each.
        budget: Bytes of weights in memory at a time.

    Raises:
        VerifyError: ONNX Runtime is missing or does not run the model.
    """
    usual = {name: value.const_value for name, value in model.graph.initializers.items()}
    for feed in feeds:
        watch.see_some(feed, watch.names)
        for name in watch.names:
            tensor = None if name in feed else usual.get(name)
            if tensor is not None:  # of an input that this run leaves out
                watch.see_some({name: tensor.numpy()}, [name])
    made = {str(value.name) for node in model.graph for value in node.outputs}
    watch.over([name for name in watch.names if name not in made])
    with SegmentRunner(model, budget=budget) as runner:
        runner.run_all(feeds, watch)
    watch.over(watch.here)


def _signed(array: Array, ends: Span) -> _Counts:
    """Return how many elements lie in each part of a span."""
    return np.histogram(array.astype(np.float64), _BINS, (ends.low, ends.high))[0]


def _sizes(array: Array, ends: Span) -> _Counts:
    """Return how many magnitudes lie in each part of what they reach."""
    top = max(abs(ends.low), abs(ends.high))
    return np.histogram(np.abs(array.astype(np.float64)), _BINS, (0.0, top))[0]


def _inner(counts: _Counts, ends: Span, percentile: float) -> Span:
    """Return the span that has a percentage of elements, as many being left out on either side."""
    share = np.cumsum(counts) / counts.sum()
    edges = np.linspace(ends.low, ends.high, _BINS + 1)
    out = (1 - percentile / 100) / 2
    low = edges[np.searchsorted(share, out, "right")]
    high = edges[min(_BINS, int(np.searchsorted(share, 1 - out)) + 1)]
    return Span(float(low), float(high))


def _telling(counts: _Counts, ends: Span) -> Span:
    """Return the span that loses the least entropy where 8 bits hold what is in it."""
    counts = counts.copy()
    counts[0] = min(counts[0], counts[1])  # exact zeros take no part
    tried = range(_LEVELS, _BINS + 1, _STRIDE)
    best = min(tried, key=lambda bins: (_lost(counts, bins), bins)) if counts.any() else _BINS
    top = max(abs(ends.low), abs(ends.high)) * best / _BINS
    return Span(max(ends.low, -top), min(ends.high, top))


def _lost(counts: _Counts, bins: int) -> float:
    """Return the entropy of a histogram that is cut off, relative to it in few levels."""
    inside = counts[:bins].astype(np.float64)
    wanted = inside.copy()
    wanted[-1] += counts[bins:].sum()
    starts = np.arange(_LEVELS) * bins // _LEVELS
    sums = np.add.reduceat(inside, starts)
    filled = np.add.reduceat((inside > 0).astype(np.float64), starts)
    level = np.repeat(np.arange(_LEVELS), np.diff([*starts, bins]))
    even = np.where(inside > 0, (sums / np.maximum(filled, 1))[level], 0)
    if not inside.any() or (wanted > 0)[even == 0].any():
        return float("inf")  # something is told by nothing
    p, q = wanted / wanted.sum(), even / even.sum()
    there = p > 0
    return float((p[there] * np.log(p[there] / q[there])).sum())
