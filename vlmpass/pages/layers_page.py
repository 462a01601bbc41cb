"""Where two models come apart, as a page to send to someone."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from pathlib import Path
from typing import TypeVar

from vlmpass import __version__
from vlmpass.ir_tools.errors import SaveError
from vlmpass.ir_tools.run import LayerComparison, OutputDifference, Verification
from vlmpass.ir_tools.run.layers import Layer
from vlmpass.ir_tools.run.value_statistics import Statistics
from vlmpass.ir_tools.system.listed import listed
from vlmpass.pages.plots import Axis, Bar, Point, linear_near_zero, plot, powers
from vlmpass.replacing import Sources, refuse_taken, replacement
from vlmpass.screens.layers import leaving_line

__all__ = ["PageFile", "layers_page"]

_T = TypeVar("_T")
_MARK = '<!DOCTYPE html>\n<html lang="en"><meta name="generator" content="vlmpass layers">'
_MOST_MARKS = 1200
"""Marks of a plot; where there are more values, the worst of each few is drawn."""
_MOST_ROWS = 5000

_STYLE = """
:root { color-scheme: light dark; --ink: #1d232b; --dim: #66707c; --line: #d9dee4; --back: #fff;
  --good: #1f77b4; --bad: #d62728; --other: #9aa5b1; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8ec; --dim: #98a2ad; --line: #343c46;
  --back: #14181d; --good: #5aa9e6; --bad: #ff6b6b; --other: #66727f; } }
body { font: 15px/1.45 system-ui, sans-serif; color: var(--ink); background: var(--back);
  max-width: 1000px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; margin-bottom: .2rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
p, caption { color: var(--dim); text-align: left; } .verdict { font-weight: 600; }
.ok { color: var(--good); } .bad { color: var(--bad); }
svg { width: 100%; height: auto; } svg text { font-size: 11px; fill: var(--dim); }
svg .title { text-anchor: middle; } .grid { stroke: var(--line); }
.limit, .first { fill: none; stroke: var(--dim); stroke-dasharray: 5 4; }
.first { stroke: var(--bad); } circle.good { fill: var(--good); } circle.bad { fill: var(--bad); }
path.good { stroke: var(--good); } path.bad { stroke: var(--bad); }
path.reference { stroke: var(--other); } path.good, path.bad, path.reference { stroke-width: 2; }
table { border-collapse: collapse; width: 100%; font-size: 13px; }
table { font-variant-numeric: tabular-nums; }
.wide { overflow-x: auto; } th, td { text-align: left; padding: .2rem .6rem .2rem 0;
  border-bottom: 1px solid var(--line); vertical-align: top; overflow-wrap: anywhere; }
"""


class PageFile:
    """The file of a page; one that is there is replaced if it is such a page.

    Args:
        path: Where it goes.
        force: Whether anything else is replaced.
        *sources: What the page is about, never replaced.

    Raises:
        SaveError: Something else is in the way, or no file can be written there.
    """

    def __init__(self, path: str | os.PathLike[str], force: bool, *sources: object) -> None:
        self.path = Path(os.path.abspath(path))
        if not self.path.parent.is_dir():
            remedy = "create it first"
            raise SaveError(f"the folder {self.path.parent} does not exist", remedy=remedy)
        Sources(*sources).refuse(self.path)
        refuse_taken(self.path, force or self._is_page())

    def _is_page(self) -> bool:
        if not self.path.is_file():
            return False
        try:
            with self.path.open(encoding="utf-8") as file:
                return file.read(len(_MARK)) == _MARK
        except (OSError, ValueError):
            return False

    def write(self, text: str) -> None:
        """Write the page; it appears whole or not at all.

        Raises:
            SaveError: It cannot be written.
        """
        with replacement(self.path) as swap:
            made = swap.folder / "page"
            try:
                made.write_text(text, encoding="utf-8", errors="replace", newline="\n")
            except OSError as error:
                raise SaveError(f"{self.path} cannot be written: {error.strerror}") from error
            swap.put(made, self.path)


def layers_page(
    outputs: Verification, inside: LayerComparison | None, expected: str, actual: str
) -> str:
    """Return a page that needs no other file, and says the same for the same comparison.

    Args:
        outputs: How the outputs compare.
        inside: How the values inside do; None where nothing was compared.
        expected: What to call the reference.
        actual: What to call the other.
    """
    title = f"{actual} against {expected}"
    parts = [
        _MARK,
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width">',
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\';'
        " style-src 'unsafe-inline'\">",
        f"<title>{escape(title)}</title><style>{_STYLE}</style>",
        f"<h1>{escape(title)}</h1>",
        *_head(outputs),
        *(() if inside is None else (*_first(inside), *_plots(inside), *_layers(inside.layers))),
        f"<p>vlmpass {escape(__version__)}</p></html>",
    ]
    return "\n".join(parts) + "\n"


def _head(found: Verification) -> Iterator[str]:
    kind, verdict = ("ok", "equal within the tolerance") if found.ok else ("bad", "not equal")
    yield f'<p class="verdict {kind}">{verdict}</p>'
    sizes = (" ".join(f"{n}={size}" for n, size in each.dims.items()) for each in found.trials)
    told = [text for text in sizes if text]
    seed = "" if found.seed is None else f", seed {found.seed}"
    yield f"<p>inputs: {escape('; '.join(told) or 'as given')}{seed}</p>"
    for text in (*found.findings, *found.notes, *found.causes):
        yield f"<p>{escape(text)}</p>"
    yield "<h2>Outputs</h2>"
    heads = ("output", "type", "max abs", "max rel", "mean rel", "allowed", "cosine", "dB", "")
    yield from _table(heads, map(_output_row, found.outputs))


def _output_row(found: OutputDifference) -> tuple[str, ...]:
    same = found.expected == found.actual
    return (
        found.name,
        found.expected if same else f"{found.expected} → {found.actual}",
        f"{found.max_abs:.2g}",
        f"{found.max_rel:.2g}",
        f"{found.mean_rel:.2g}",
        f"{found.tolerance:.2g}" if found.tolerance else "exact",
        f"{found.cosine:.6f}",
        "" if found.snr is None else f"{found.snr:.0f}",
        "ok" if found.ok else found.reason or "differs",
    )


def _first(inside: LayerComparison) -> Iterator[str]:
    yield "<h2>Where they come apart</h2>"
    if inside.leaving is not None:
        yield f"<p>{escape(leaving_line(inside.leaving))}</p>"
    if inside.closed:
        yield f"<p>not looked into: {escape(listed(inside.closed))}</p>"
    if inside.unmatched:
        yield f"<p>{inside.unmatched:,} values are in one model only.</p>"
    if inside.first is None:
        none = "none of the values inside diverges" if inside.layers else "no value is in both"
        yield f'<p class="ok">{none}</p>'
        return
    layer = inside.layers[inside.first]
    rows = [
        ("value", layer.name),
        ("made by", layer.node),
        ("module", layer.module or "unknown"),
        ("wrong", layer.difference.reason or f"relative error {layer.difference.max_rel:.1e}"),
        ("expected", _statistics(layer.expected)),
        ("actual", _statistics(layer.actual)),
    ]
    yield from _table((), rows)


def _statistics(found: Statistics) -> str:
    text = f"{_range(found)}, mean {found.mean:.3g}, deviation {found.deviation:.3g}"
    return text + "".join(f", {number:,} {what}" for number, what in _oddities(found))


def _range(found: Statistics) -> str:
    return f"{found.least:.3g} to {found.most:.3g}"


def _oddities(found: Statistics) -> Iterator[tuple[int, str]]:
    for number, what in ((found.nan, "NaN"), (found.inf, "infinite"), (found.zero, "zero")):
        if number:
            yield number, what


def _plots(inside: LayerComparison) -> Iterator[str]:
    layers = inside.layers
    if not layers:
        return
    yield "<h2>Error per value</h2>"
    yield (
        "<p>Largest relative error of every value that both models have, in the order in which the"
        " second makes them; the dashed line is what is allowed, red is what differs.</p>"
    )
    yield _errors(inside)
    yield "<h2>Range per value</h2>"
    yield "<p>Smallest to largest finite element, the reference in grey; up to a million.</p>"
    yield _ranges(inside)


def _errors(inside: LayerComparison) -> str:
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


def _ranges(inside: LayerComparison) -> str:
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
        label = f"{at}: {each.name}, expected {_range(each.expected)}, actual {_range(each.actual)}"
        old, new = each.expected, each.actual
        marks.append(Bar(at, old.least, old.most, "reference", label, -0.2))
        marks.append(Bar(at, new.least, new.most, _kind(each), label, 0.2))
    return plot(axis, len(layers), marks, name="range per value", first=inside.first)


def _kind(layer: Layer) -> str:
    return "good" if layer.difference.ok else "bad"


def _error(layer: Layer) -> str:
    return layer.difference.reason or f"{layer.difference.max_rel:.1e}"


def _worst(layers: Sequence[Layer]) -> list[tuple[int, Layer]]:
    """Return values with their places, the worst of each few where there are many."""
    step = -(-len(layers) // _MOST_MARKS)
    pairs = list(enumerate(layers))
    return [
        max(pairs[start : start + step], key=lambda pair: _badness(pair[1]))
        for start in range(0, len(pairs), step)
    ]


def _badness(layer: Layer) -> tuple[bool, float]:
    return not layer.difference.ok, layer.difference.max_rel


def _few(items: Sequence[_T]) -> Sequence[_T]:
    return items[:: -(-len(items) // _MOST_MARKS)]


def _layers(layers: Sequence[Layer]) -> Iterator[str]:
    if not layers:
        return
    shown = layers[:_MOST_ROWS]
    yield "<h2>Every value</h2>"
    if len(shown) < len(layers):
        yield f"<p>The first {len(shown):,} of {len(layers):,}; --json has all.</p>"
    heads = ("", "value", "made by", "module", "max rel", "norm", "expected", "actual", "")
    yield from _table(heads, (_layer_row(at, each) for at, each in enumerate(shown)))


def _layer_row(at: int, layer: Layer) -> tuple[str, ...]:
    found = layer.difference
    return (
        str(at),
        layer.name,
        layer.node,
        layer.module,
        f"{found.max_rel:.1e}",
        f"{found.norm:.1e}",
        _range(layer.expected),
        _range(layer.actual),
        "ok" if found.ok else found.reason or "differs",
    )


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield '<div class="wide"><table>'
    if heads:
        yield f"<tr>{''.join(f'<th>{escape(head)}</th>' for head in heads)}</tr>"
    for row in rows:
        kind = "" if not heads or row[-1] == "ok" else ' class="bad"'
        yield f"<tr{kind}>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>"
    yield "</table></div>"
