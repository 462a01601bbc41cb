"""Which products stay float so that rounding the others costs no more than a budget.

What each costs alone is measured, on the model with that weight rounded as the result's will be, in
floats; then the most sensitive stay, as few as bring the whole within the budget.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from vlmpass.ir_tools.errors import VerifyError
from vlmpass.ir_tools.graph.clone import clone
from vlmpass.ir_tools.graph.describe import name_node
from vlmpass.ir_tools.graph.walk import all_nodes
from vlmpass.ir_tools.run.calibration import calibration_feeds
from vlmpass.ir_tools.run.segment_runner import SegmentRunner
from vlmpass.ir_tools.worker.transport import Array, Feed
from vlmpass.passes.pipeline.base import Pass
from vlmpass.passes.pipeline.measuring_once import measuring_once
from vlmpass.rewriter_rules.quant.plain import SENSITIVE

__all__ = ["RoundedLayer", "Sensitivity", "stay_within"]


@dataclass(frozen=True)
class RoundedLayer:
    """What rounding one weight costs.

    Attributes:
        name: The first product that it is in.
        error: Of the outputs where nothing else is rounded, relative to their size.
        stays: Whether it stays float.
    """

    name: str
    error: float
    stays: bool


@dataclass(frozen=True)
class Sensitivity:
    """What was measured.

    Attributes:
        layers: In the order of the graph.
        whole: The error where all of them are rounded.
        left: The error where those that stay are not.
        budget: The most that it may be.
    """

    layers: tuple[RoundedLayer, ...]
    whole: float
    left: float
    budget: float


def stay_within(
    model: ir.Model, passes: Sequence[Pass], budget: float, inputs: str
) -> Sensitivity | None:
    """Mark the products of a model that passes are to leave alone, and return what was measured.

    Args:
        model: Before the passes; only marks on nodes are changed.
        passes: What rounds.
        budget: The most that outputs may be off, relative to their size, in the worst one.
        inputs: As for `calibration_feeds`.

    Returns:
        What was measured; None where the passes round nothing.

    Raises:
        VerifyError: It does not run, an output is not finite, or nothing can be rounded within it.
    """
    with measuring_once():
        return _stay_within(model, _Trial(model, passes, inputs), budget)


def _stay_within(model: ir.Model, trial: _Trial, budget: float) -> Sensitivity | None:
    if not trial.layers:
        return None
    alone = [trial.error([at]) for at in range(len(trial.layers))]
    order = sorted(range(len(alone)), key=lambda at: (-alone[at], at))
    found = {0: trial.error(order)}
    few, many = 0, len(order)
    while few < many:  # the fewest that stay, as if the error fell with each
        count = (few + many) // 2
        found[count] = found.get(count, math.nan)
        if math.isnan(found[count]):
            found[count] = trial.error(order[count:])
        few, many = (few, count) if found[count] <= budget else (count + 1, many)
    if few == len(order):
        least = f"the least costs {min(alone):.2%} alone"
        raise VerifyError(
            f"no product can be rounded within {budget:.2%}: {least}",
            remedy="give a larger budget, or more bits",
        )
    stays = set(order[:few])
    for at in stays:
        trial.mark(model, at)
    layers = tuple(
        RoundedLayer(name, error, at in stays)
        for at, (name, error) in enumerate(zip(trial.names, alone, strict=True))
    )
    return Sensitivity(layers, found[0], found[few], budget)


class _Trial:
    """Runs a model with some of its layers rounded.

    Attributes:
        layers: For each weight that is rounded, the places of its products among all nodes.
        names: What each is called.
    """

    def __init__(self, model: ir.Model, passes: Sequence[Pass], inputs: str) -> None:
        self._model, self._passes = model, passes
        self._feeds = calibration_feeds(inputs, model)
        twin, done = clone(model), set[ir.Value]()
        users: dict[ir.Value, list[int]] = {}
        for at, node in enumerate(all_nodes(twin)):
            for value in dict.fromkeys(node.inputs):
                if value is not None:
                    users.setdefault(value, []).append(at)
        for each in passes:
            each.round_likewise(twin, done)
        self.layers = [places for value, places in users.items() if value in done]
        nodes = list(all_nodes(model))
        firsts = [nodes[places[0]] for places in self.layers]
        self.names = [node.name or name_node(node) for node in firsts]
        self._wanted = self._outputs(model) if self.layers else []
        if self.layers and not any(each.size for run in self._wanted for each in run.values()):
            raise VerifyError(
                "no output has floating-point numbers that errors could be measured of",
                remedy="leave out --sensitivity, or give other inputs",
            )

    def mark(self, model: ir.Model, layer: int) -> None:
        """Let the products of a layer stay float in a copy of the model."""
        nodes = list(all_nodes(model))
        for place in self.layers[layer]:
            nodes[place].metadata_props[SENSITIVE] = "stays float"

    def error(self, rounded: Iterable[int]) -> float:
        """Return how far outputs are off where these layers are rounded, in the worst output."""
        twin, kept = clone(self._model), set(range(len(self.layers))) - set(rounded)
        for layer in kept:
            self.mark(twin, layer)
        done: set[ir.Value] = set()
        for each in self._passes:
            each.round_likewise(twin, done)
        return _worst(self._wanted, self._outputs(twin))

    def _outputs(self, model: ir.Model) -> list[dict[str, Array]]:
        with SegmentRunner(model) as runner:
            return [_floats(each) for each in runner.run_all(self._feeds)]


def _floats(made: Feed) -> dict[str, Array]:
    """Return the outputs of floating-point numbers, in memory."""
    arrays = {name: each for name, each in made.items() if isinstance(each, np.ndarray)}
    return {
        name: np.array(each, np.float64) for name, each in arrays.items() if each.dtype.kind in "fV"
    }


def _worst(wanted: Sequence[dict[str, Array]], found: Sequence[dict[str, Array]]) -> float:
    worst = 0.0
    for name in wanted[0]:
        a, b = (np.concatenate([run[name].ravel() for run in runs]) for runs in (wanted, found))
        if not np.isfinite(a).all():
            raise VerifyError(
                f"output '{name}' is not finite on the inputs that errors are measured with",
                remedy="give other inputs",
            )
        off, size = float(np.linalg.norm(b - a)), float(np.linalg.norm(a))
        worst = max(worst, off / size if size else off) if math.isfinite(off) else math.inf
    return worst
