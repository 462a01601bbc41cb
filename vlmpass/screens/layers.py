"""Where two models come apart, on screen."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from vlmpass.ir_tools.run.layers import Layer, LayerComparison
from vlmpass.ir_tools.run.leaving import Leaving
from vlmpass.ir_tools.run.value_statistics import Statistics
from vlmpass.ir_tools.system.listed import listed
from vlmpass.screens.text import count, grid

__all__ = ["apart_line", "layers_screen", "leaving_line"]

_BEFORE, _AFTER = 4, 10


def layers_screen(found: LayerComparison) -> RenderableType:
    """Return the first value that diverges, what it is like in both, and how the error grows."""
    if not found.layers:
        return Text("no value inside is in both models: their outputs were compared", style="dim")
    compared = f"{count(len(found.layers))} values inside compared"
    if found.unmatched:
        compared += f", {count(found.unmatched)} are in one model only"
    parts: list[RenderableType] = [Text(compared, style="dim")]
    if found.leaving is not None:
        parts.append(Text(leaving_line(found.leaving), style="yellow"))
    if found.closed:
        parts.append(Text(f"not looked into: {listed(found.closed)}", style="yellow"))
    if found.apart:
        parts.append(Text(apart_line(found.apart), style="yellow"))
    if found.first is None:
        return Group(*parts, Text("none diverges", style="bold green"))
    first = found.layers[found.first]
    told = grid("", "", whole=(0,))
    told.line("first", Text(first.name, style="bold red"))
    told.line("made by", Text(first.node))
    if first.module:
        told.line("module", Text(first.module))
    told.line("wrong", Text(_wrong(first), style="red"))
    told.line("expected", Text(_statistics(first.expected)))
    told.line("actual", Text(_statistics(first.actual)))
    return Group(*parts, "", told, "", _table(found, found.first))


def leaving_line(found: Leaving) -> str:
    """Return which value is the first that the narrow type cannot hold."""
    where = f" inside {found.inside}" if found.inside else ""
    size = f"reaches {found.reaches:.3g}" if math.isfinite(found.reaches) else "overflows"
    return f"'{found.name}'{where} {size}, the first beyond the range of the type"


def apart_line(names: Sequence[str]) -> str:
    """Return which values are not what a module gives, though what is computed of them agrees."""
    return f"other than in the module, but not what is computed of it: {listed(names)}"


def _wrong(layer: Layer) -> str:
    found = layer.difference
    return found.reason or f"relative error {found.max_rel:.1e}"


def _statistics(found: Statistics) -> str:
    text = f"{found.least:.3g} to {found.most:.3g}, mean {found.mean:.3g} ± {found.deviation:.3g}"
    for number, what in ((found.nan, "NaN"), (found.inf, "infinite"), (found.zero, "zero")):
        text += f", {count(number)} {what}" if number else ""
    return text


def _table(found: LayerComparison, first: int) -> RenderableType:
    """Return the values before the first, and some on the way from it to the last."""
    table = grid("value", "max rel", "norm", "largest", "", right=(1, 2, 3))
    rest = len(found.layers) - 1 - first
    step = max(1, rest // _AFTER)
    after = range(first + step, len(found.layers), step)
    for index in (*range(max(0, first - _BEFORE), first + 1), *after):
        layer = found.layers[index]
        style = "red" if index == first else ""
        table.line(
            Text(layer.name, style=style),
            f"{layer.difference.max_rel:.1e}",
            f"{layer.difference.norm:.1e}",
            f"{layer.actual.magnitude:.3g}",
            Text("" if layer.difference.ok else "differs", style="red"),
        )
    return table
