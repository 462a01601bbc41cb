"""Error and range of the values inside two models, as plots."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from vlmpass.ir_tools.run import LayerComparison
from vlmpass.ir_tools.run.layers import Layer
from vlmpass.ir_tools.run.value_statistics import Statistics
from vlmpass.pages.plots import Axis, Bar, Plot, Point, linear_near_zero, plot, powers

__all__ = ["LAYER_PLOTS", "error_plot", "layer_plots", "range_plot", "range_text"]

LAYER_PLOTS = ("error.svg", "range.svg")
"""Names of the files that plots go to."""
_T = TypeVar("_T")
_MOST_MARKS = 1200
"""Marks of a plot; where there are more values, the worst of each few is drawn."""


def layer_plots(inside: LayerComparison | None, expected: str, actual: str) -> dict[str, str]:
    """Return files that need no others, by name; the same text for the same comparison.

    Args:
        inside: How the values inside compare; None where nothing was compared, which is drawn, too.
        expected: What to call the reference.
        actual: What to call the other.
    """
    found = LayerComparison((), None, None, 0, 0.0) if inside is None else inside
    told = "no value is in both" if not found.layers else "none of the values diverges"
    if found.first is not None:
        first = found.layers[found.first]
        told = f"the first that diverges is {found.first}: {first.name}, made by {first.node}"
    made = zip(LAYER_PLOTS, (error_plot(found), range_plot(found)), strict=True)
    head = f"{actual} against {expected}"
    return {name: each.alone(f"{each.name}, {head}", [told]) for name, each in made}


def error_plot(inside: LayerComparison) -> Plot:
    """Return the largest relative error of every value, what is allowed, and what differs."""
    layers = inside.layers
    allowed = [(at, each.difference.tolerance) for at, each in enumerate(layers)]
    line = [(at, bound) for at, bound in allowed if bound > 0]
    numbers = [each.difference.max_rel for each in layers]
    axis = powers("relative error", [*numbers, *(bound for _, bound in line)])
    chosen = _worst(layers)
    marks = [
        Point(at, _drawable(each, axis), _kind(each), f"{at}: {each.name}, {_error(each)}")
        for at, each in chosen
    ]
    few = [line[0], *_few(line), line[-1]] if line else []
    return plot(axis, len(layers), marks, name="error per value", line=few, first=inside.first)


def _drawable(layer: Layer, axis: Axis) -> float:
    """Return the error; where one of the two is not finite, the most that is drawn."""
    odd = layer.difference.nan[0] != layer.difference.nan[1]
    odd = odd or layer.difference.inf[0] != layer.difference.inf[1]
    return axis.ticks[-1] if odd else layer.difference.max_rel


def range_plot(inside: LayerComparison) -> Plot:
    """Return the smallest to the largest finite element of every value, in both models."""
    layers = inside.layers
    ends = (
        end
        for each in layers
        for found in (each.expected, each.actual)
        for end in (found.least, found.most)
    )
    axis = linear_near_zero("value", ends)
    marks = []
    for at, each in _worst(layers):
        old, new = each.expected, each.actual
        label = f"{at}: {each.name}, expected {range_text(old)}, actual {range_text(new)}"
        marks.append(Bar(at, old.least, old.most, "reference", label, -0.2))
        marks.append(Bar(at, new.least, new.most, _kind(each), label, 0.2))
    return plot(axis, len(layers), marks, name="range per value", first=inside.first)


def _kind(layer: Layer) -> str:
    return "good" if layer.difference.ok else "bad"


def _error(layer: Layer) -> str:
    return layer.difference.reason or f"{layer.difference.max_rel:.1e}"


def _worst(layers: Sequence[Layer]) -> list[tuple[int, Layer]]:
    """Return values with their places, the worst of each few where there are many."""
    step = max(1, -(-len(layers) // _MOST_MARKS))
    pairs = list(enumerate(layers))
    return [
        max(pairs[start : start + step], key=lambda pair: _badness(pair[1]))
        for start in range(0, len(pairs), step)
    ]


def _badness(layer: Layer) -> tuple[bool, float]:
    return not layer.difference.ok, layer.difference.max_rel


def _few(items: Sequence[_T]) -> Sequence[_T]:
    return items[:: -(-len(items) // _MOST_MARKS)]


def range_text(found: Statistics) -> str:
    """Return the smallest and the largest finite element."""
    return f"{found.least:.3g} to {found.most:.3g}"
