"""Where two models come apart: the values inside both, matched and compared in order.

What one model computes lies in files until the other one has been run, segment by segment: memory
holds one value of each.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from vlmpass.ir_tools.errors import VerifyError
from vlmpass.ir_tools.graph.clone import clone
from vlmpass.ir_tools.graph.constants import constant_of
from vlmpass.ir_tools.graph.describe import name_node
from vlmpass.ir_tools.graph.effects import EXACT, Effect, NumberChanges
from vlmpass.ir_tools.inspecting.difference import origins
from vlmpass.ir_tools.inspecting.modules import module_of
from vlmpass.ir_tools.load.source import Source
from vlmpass.ir_tools.operators.dtypes import end_of
from vlmpass.ir_tools.run.addition import NOTHING, Addition
from vlmpass.ir_tools.run.allowance import Allowance, bounds_of
from vlmpass.ir_tools.run.borders import match_interfaces
from vlmpass.ir_tools.run.compare import OutputDifference, compare_arrays
from vlmpass.ir_tools.run.feeds import cast_all
from vlmpass.ir_tools.run.participants import Restore, Side, side_of
from vlmpass.ir_tools.run.request import Inputs, emulated_type, given_inputs
from vlmpass.ir_tools.run.segment_runner import SegmentRunner
from vlmpass.ir_tools.run.sizes import Shapes, refuse_both
from vlmpass.ir_tools.run.verify import Comparison
from vlmpass.ir_tools.system.arguments import callable_or_none
from vlmpass.ir_tools.worker.folder import WorkFolder
from vlmpass.ir_tools.worker.transport import Array, Feed

__all__ = ["Layer", "LayerComparison", "Statistics", "compare_layers", "matched_values"]

_FX_NODE = "pkg.torch.onnx.fx_node"


@dataclass(frozen=True)
class Statistics:
    """What the elements of one value are like.

    Attributes:
        least: The smallest finite one.
        most: The largest finite one.
        mean: Of the finite ones.
        deviation: Standard deviation of the finite ones.
        nan: How many are NaN.
        inf: How many are infinite.
        zero: How many are zero.
        size: How many there are.
    """

    least: float
    most: float
    mean: float
    deviation: float
    nan: int
    inf: int
    zero: int
    size: int

    @property
    def magnitude(self) -> float:
        """The largest finite magnitude."""
        return max(abs(self.least), abs(self.most))


@dataclass(frozen=True)
class Layer:
    """One value that both models have.

    Attributes:
        name: In the second model.
        expected_name: In the first.
        node: What makes it in the second model.
        module: The module that it is of; empty where that is unknown.
        difference: How it compares.
        expected: The first model's elements.
        actual: The second's.
        trial: Which set of inputs it compares worst for, counted from 0.
    """

    name: str
    expected_name: str
    node: str
    module: str
    difference: OutputDifference
    expected: Statistics
    actual: Statistics
    trial: int = 0


@dataclass(frozen=True)
class LayerComparison:
    """All values that two models have in common, in the order in which the second makes them.

    Attributes:
        layers: The values.
        first: Index of the first that diverges; None if none does.
        ending: Name of the first whose elements the narrow type that is emulated cannot hold;
            empty if there is none, or nothing was emulated.
        unmatched: How many values of the second model the first has not.
        seconds: Wall time.
    """

    layers: tuple[Layer, ...]
    first: int | None
    ending: str
    unmatched: int
    seconds: float

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
    restore: Restore | None = None,
    allowance: Allowance | None = None,
    changes: NumberChanges = EXACT,
) -> LayerComparison:
    """Run two models on the same inputs and compare every value that both have.

    Args:
        expected: The reference: anything that `load` takes.
        actual: What is judged.
        inputs, shapes, seed, tolerance, emulated, restore, allowance, changes: As for `verify`.

    Raises:
        ArgumentError: An argument is of a wrong type.
        VerifyError: They do not take the same inputs, or one of them does not run here.
    """
    rounded = emulated_type(emulated)
    callable_or_none("restore", restore)
    bounds = bounds_of(allowance)
    refuse_both(inputs, shapes)

    def comparison(held: NumberChanges, restore: Restore | None) -> Comparison:
        sides = side_of(expected, bounds), side_of(actual, bounds)
        sides[1].emulated = rounded
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
    if not pairs:
        return LayerComparison((), None, "", len(_values(b.model)), time.perf_counter() - start)
    with ExitStack() as stack:
        folder = WorkFolder()
        stack.callback(folder.remove)
        feeds = _feeds(stack, compared, fed)
        kept = _Kept(folder.path, [*pairs.values()])
        _run(stack, a, feeds, kept)
        seen = _Compared(b.model, pairs, kept, compared.tolerance, bound)
        seen.end = math.inf if b.emulated is None else end_of(b.emulated)
        _run(stack, b, [cast_all(each, b.takes()) for each in feeds], seen)
        return seen.told(time.perf_counter() - start)


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


def _run(stack: ExitStack, side: Side, feeds: Sequence[Feed], watch: _Kept | _Compared) -> None:
    model = side.twin if side.changed else side.model
    runner = SegmentRunner(clone(model), allowance=side.allowance)
    stack.callback(runner.close)
    runner.run_all(feeds, watch)
    runner.close()


def matched_values(a: ir.Model, b: ir.Model) -> dict[str, str]:
    """Return what values of one model are called in another one, by their names in the latter.

    Values of one name are the same; then those that come to be alike, whatever they are called;
    then those that the exporter says are of one node of its program. Constants do not count.
    """
    old, new = _values(a), _values(b)
    pairs = {name: name for name in new if name in old}
    taken = {*pairs}
    for of in (origins, _provenance):
        ours, theirs = of(a), of(b)
        known: dict[str, str] = {}
        for name, value in old.items():
            key = ours.get(value)
            if key is not None and name not in taken:
                known.setdefault(key, name)
        for name, value in new.items():
            key = None if name in pairs else theirs.get(value)
            if key is not None and key in known:
                pairs[name] = known.pop(key)
                taken.add(pairs[name])
    return {name: pairs[name] for name in new if name in pairs}


def _values(model: ir.Model) -> dict[str, ir.Value]:
    return {
        value.name: value
        for node in model.graph
        for value in node.outputs
        if value.name and constant_of(value) is None
    }


def _provenance(model: ir.Model) -> dict[ir.Value, str]:
    """Return the exporter's text of the node that each value is the last one of."""
    last: dict[str, ir.Value] = {}
    for node in model.graph:
        text = node.metadata_props.get(_FX_NODE)
        if text and len(node.outputs) == 1:
            last[text] = node.outputs[0]
    return {value: text for text, value in last.items()}


class _Kept:
    """Keeps values of the first model in files.

    Args:
        folder: Where.
        wanted: Names of the values.
    """

    def __init__(self, folder: Path, wanted: Iterable[str]) -> None:
        self._folder = folder
        self._wanted = wanted
        self._here: list[str] = []
        self._runs: dict[str, int] = {}
        self._files: dict[tuple[str, int], Path] = {}

    def prepare(self, segment: ir.Model) -> Addition:
        """Add those that a segment makes to its outputs."""
        self._here = _shown(segment, self._wanted)
        return NOTHING

    def see(self, results: Feed) -> None:
        """Write them."""
        for name in self._here:
            value = results[name]
            if isinstance(value, np.ndarray) and value.dtype != object:
                number = self._runs[name] = self._runs.get(name, -1) + 1
                path = self._folder / f"{len(self._files)}.npy"
                self._files[name, number] = path
                np.save(path, _plain(value))

    def take(self, name: str, number: int) -> Array | None:
        """Return a value for a set of inputs, mapped; None if it is no tensor."""
        path = self._files.get((name, number))
        return None if path is None else np.load(path, mmap_mode="r")


class _Compared:
    """Compares values of the second model with those kept."""

    def __init__(
        self,
        model: ir.Model,
        pairs: Mapping[str, str],
        kept: _Kept,
        tolerance: float | None,
        bound: float,
    ) -> None:
        self._pairs, self._kept = pairs, kept
        self._tolerance, self._bound = tolerance, bound
        self._nodes = {v.name: node for node in model.graph for v in node.outputs if v.name}
        self._here: list[str] = []
        self._runs: dict[str, int] = {}
        self._layers: dict[str, Layer] = {}
        self._all = len(_values(model))
        self.end = math.inf

    def prepare(self, segment: ir.Model) -> Addition:
        """Add those that a segment makes to its outputs."""
        self._here = _shown(segment, self._pairs)
        return NOTHING

    def see(self, results: Feed) -> None:
        """Compare them."""
        for name in self._here:
            number = self._runs[name] = self._runs.get(name, -1) + 1
            expected, actual = self._kept.take(self._pairs[name], number), results[name]
            if expected is None or not isinstance(actual, np.ndarray):
                continue
            layer = self._layer(name, expected, _plain(actual), number)
            held = self._layers.get(name)
            if held is None or _badness(layer.difference) > _badness(held.difference):
                self._layers[name] = layer

    def _layer(self, name: str, expected: Array, actual: Array, number: int) -> Layer:
        node = self._nodes[name]
        found = compare_arrays(
            name, expected, actual, tolerance=self._tolerance, at_least=self._bound
        )
        return Layer(
            name,
            self._pairs[name],
            name_node(node),
            module_of(node) or "",
            found,
            _statistics(expected),
            _statistics(actual),
            number,
        )

    def told(self, seconds: float) -> LayerComparison:
        """Return all that was compared, in graph order."""
        layers = tuple(self._layers[name] for name in self._nodes if name in self._layers)
        wrong = (index for index, each in enumerate(layers) if not each.difference.ok)
        leaving = (each.name for each in layers if each.expected.magnitude > self.end)
        return LayerComparison(
            layers, next(wrong, None), next(leaving, ""), self._all - len(layers), seconds
        )


def _badness(found: OutputDifference) -> tuple[bool, int, float]:
    return not found.ok, sum(found.nan) + sum(found.inf), found.max_rel


def _shown(segment: ir.Model, wanted: Iterable[str]) -> list[str]:
    made = {value.name: value for node in segment.graph for value in node.outputs}
    there = {value.name for value in segment.graph.outputs}
    here = [name for name in wanted if name in made]
    segment.graph.outputs.extend(made[name] for name in here if name not in there)
    return here


def _plain(value: Array) -> Array:
    """Return a value in a type that numpy's files have; narrow ones in float32."""
    return value.astype(np.float32) if value.dtype.kind == "V" else np.asarray(value)


def _statistics(value: Array) -> Statistics:
    if value.dtype.kind not in "fiub" or not value.size:
        return Statistics(0.0, 0.0, 0.0, 0.0, 0, 0, 0, value.size)
    numbers = value.astype(np.float64).ravel()
    finite = numbers[np.isfinite(numbers)]
    nan = int(np.isnan(numbers).sum())
    inf = numbers.size - finite.size - nan
    zero = int((finite == 0).sum())
    if not finite.size:
        return Statistics(0.0, 0.0, 0.0, 0.0, nan, inf, zero, numbers.size)
    return Statistics(
        float(finite.min()),
        float(finite.max()),
        float(finite.mean()),
        float(finite.std()),
        nan,
        inf,
        zero,
        numbers.size,
    )
