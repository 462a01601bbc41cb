"""Plots of one value after another, as SVG that stands in a page or in a file of its own."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape

__all__ = [
    "DARK",
    "LIGHT",
    "SVG_MARK",
    "Axis",
    "Bar",
    "Plot",
    "Point",
    "linear_near_zero",
    "plot",
    "plot_style",
    "powers",
]

SVG_MARK = '<?xml version="1.0" encoding="UTF-8"?>\n<!-- vlmpass layers -->\n'
"""How a file of a plot begins."""
LIGHT = {
    "ink": "#1d232b",
    "dim": "#66707c",
    "line": "#d9dee4",
    "back": "#fff",
    "good": "#1f77b4",
    "bad": "#d62728",
    "other": "#9aa5b1",
}
DARK = {
    "ink": "#e4e8ec",
    "dim": "#98a2ad",
    "line": "#343c46",
    "back": "#14181d",
    "good": "#5aa9e6",
    "bad": "#ff6b6b",
    "other": "#66727f",
}

_WIDTH, _HEIGHT = 960, 312
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 14, 12, 46
_HEAD, _LINE = 30, 18
_MOST_LETTERS = 130
"""Of a line above a plot, which is not broken."""
_NO_XML = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_MOST_TICKS = 9
_NEAR_ZERO = 1e-3
"""Below this magnitude a signed axis is linear."""
_LARGEST = 6
"""Power of ten at which a signed axis ends: masks of -1e38 would leave no room for the rest."""


@dataclass(frozen=True)
class Axis:
    """The vertical axis.

    Attributes:
        title: What is shown.
        ticks: Numbers that are written beside it, in order; the ends of the axis.
        place: Where a number lies on it, any monotonic scale.
        least: What is written before the lowest tick.
    """

    title: str
    ticks: Sequence[float]
    place: Callable[[float], float]
    least: str = ""

    def y(self, number: float) -> float:
        """Return where a number is drawn: at the end if it is beyond it, NaN at the top."""
        low, high = self.place(self.ticks[0]), self.place(self.ticks[-1])
        part = 1.0 if math.isnan(number) else (self.place(number) - low) / ((high - low) or 1.0)
        return _TOP + (1 - min(max(part, 0.0), 1.0)) * (_HEIGHT - _TOP - _BOTTOM)


@dataclass(frozen=True)
class Point:
    """A number at a place in the order; `kind` is its class in the page's style."""

    at: float
    number: float
    kind: str
    label: str


@dataclass(frozen=True)
class Bar:
    """A range of numbers at a place in the order, beside others by `shift` of a place."""

    at: float
    low: float
    high: float
    kind: str
    label: str
    shift: float = 0.0


def powers(title: str, numbers: Iterable[float]) -> Axis:
    """Return an axis of powers of ten; zero lies at its lower end, below all other numbers."""
    held = [number for number in numbers if number > 0 and math.isfinite(number)]
    low = math.floor(math.log10(min(held))) - 1 if held else -9
    high = math.ceil(math.log10(max(held))) if held else 0
    high = max(high, low + 1)
    ticks = [10.0**power for power in _thinned(range(low, high + 1))]
    floor = ticks[0]
    return Axis(title, ticks, lambda number: math.log10(max(number, floor)), "≤ ")


def linear_near_zero(title: str, numbers: Iterable[float]) -> Axis:
    """Return an axis of powers of ten on both sides of zero, linear next to it.

    What is beyond a million lies at its ends.
    """
    held = [number for number in numbers if math.isfinite(number)]
    ends = min(held, default=0.0), max(held, default=1.0)
    most = max(map(abs, ends)) or 1.0
    top = min(max(math.ceil(math.log10(most)), -2), _LARGEST)
    steps = _thinned(range(-2, top + 1))
    above = [10.0**power for power in steps] if ends[1] > 0 else []
    below = [-(10.0**power) for power in reversed(steps)] if ends[0] < 0 else []
    return Axis(title, [*below, 0.0, *above], _signed)


def _signed(number: float) -> float:
    return math.copysign(math.log10(1 + abs(number) / _NEAR_ZERO), number)


def _thinned(powers: range) -> list[int]:
    """Return every power, or every second, third …, both ends among them."""
    step = max(1, math.ceil((len(powers) - 1) / (_MOST_TICKS - 1)))
    return sorted({*powers[::-step], powers[0]})


def plot_style(colours: Mapping[str, str]) -> str:
    """Return how plots are drawn.

    Args:
        colours: What stands for each of those of `LIGHT`.
    """
    return """svg text {{ font-size: 11px; fill: {dim}; }}
svg .title {{ text-anchor: middle; }} .grid {{ stroke: {line}; }}
.limit, .first {{ fill: none; stroke: {dim}; stroke-dasharray: 5 4; }}
.first {{ stroke: {bad}; }} circle.good {{ fill: {good}; }} circle.bad {{ fill: {bad}; }}
path.good {{ stroke: {good}; }} path.bad {{ stroke: {bad}; }} path.reference {{ stroke: {other}; }}
path.good, path.bad, path.reference {{ stroke-width: 2; }}""".format(**colours)


@dataclass(frozen=True)
class Plot:
    """What is drawn, and what it shows, for those who do not see it."""

    name: str
    drawn: Sequence[str]

    def inline(self) -> str:
        """Return it as a part of a page, which has `plot_style`."""
        head = f'<svg role="img" aria-label="{escape(self.name)}" viewBox="0 0 {_WIDTH} {_HEIGHT}">'
        return "\n".join([head, *self.drawn, "</svg>"])

    def alone(self, title: str, lines: Sequence[str] = ()) -> str:
        """Return it as a file that needs no other, in colours that every program knows.

        Args:
            title: Stands above it.
            lines: Stand below the title.
        """
        top = _HEAD + _LINE * len(lines)
        size = f'width="{_WIDTH}" height="{_HEIGHT + top}" viewBox="0 0 {_WIDTH} {_HEIGHT + top}"'
        style = "svg { font-family: sans-serif; } svg .head { font-size: 14px; font-weight: 600; "
        style += f"fill: {LIGHT['ink']}; }}\n{plot_style(LIGHT)}"
        rest = enumerate(lines, 1)
        parts = [
            f'{SVG_MARK}<svg xmlns="http://www.w3.org/2000/svg" role="img" {size}>',
            f"<title>{escape(title)}: {escape(self.name)}</title><style>{style}</style>",
            f'<rect width="100%" height="100%" fill="{LIGHT["back"]}"/>',
            f'<text class="head" x="14" y="20">{escape(_shortened(title))}</text>',
            *(
                f'<text x="14" y="{20 + _LINE * at}">{escape(_shortened(t))}</text>'
                for at, t in rest
            ),
            f'<g transform="translate(0 {top})">',
            *self.drawn,
            "</g></svg>",
        ]
        return _NO_XML.sub("\N{REPLACEMENT CHARACTER}", "\n".join(parts) + "\n")


def _shortened(text: str) -> str:
    return text if len(text) <= _MOST_LETTERS else f"{text[: _MOST_LETTERS - 1]}…"


def plot(
    axis: Axis,
    length: int,
    marks: Sequence[Point | Bar],
    *,
    name: str,
    line: Sequence[tuple[float, float]] = (),
    first: int | None = None,
) -> Plot:
    """Return a plot.

    Args:
        axis: The vertical axis.
        length: How many places there are in the order.
        marks: What is drawn.
        name: What the plot shows, for those who do not see it.
        line: Places and numbers of a limit.
        first: A place that is marked.
    """
    drawn = [*_grid(axis, length)]
    if first is not None:
        x = _x(first, length)
        drawn.append(f'<path class="first" d="M{x:.1f} {_TOP}V{_HEIGHT - _BOTTOM}"/>')
    if line:
        path = "L".join(f"{_x(at, length):.1f} {axis.y(number):.1f}" for at, number in line)
        drawn.append(f'<path class="limit" d="M{path}"/>')
    drawn += [_drawn(mark, axis, length) for mark in marks]
    return Plot(name, drawn)


def _x(at: float, length: int) -> float:
    return _LEFT + (at + 0.5) / max(length, 1) * (_WIDTH - _LEFT - _RIGHT)


def _grid(axis: Axis, length: int) -> Iterator[str]:
    for tick in axis.ticks:
        y = axis.y(tick)
        text = f"{axis.least if tick == axis.ticks[0] else ''}{tick:.3g}"
        yield f'<path class="grid" d="M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}"/>'
        yield f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{text}</text>'
    step = max(1, 10 ** math.floor(math.log10(max(length, 1))))
    step = step // 2 if length < 3 * step and step > 1 else step
    for at in range(0, length, step):
        x = _x(at, length)
        yield f'<text x="{x:.1f}" y="{_HEIGHT - _BOTTOM + 18}" text-anchor="middle">{at}</text>'
    x = (_LEFT + _WIDTH - _RIGHT) / 2
    yield f'<text class="title" x="{x:.0f}" y="{_HEIGHT - 8}">place of the value</text>'
    middle = (_HEIGHT - _BOTTOM + _TOP) / 2
    title = escape(axis.title)
    yield f'<text class="title" transform="translate(14 {middle:.0f}) rotate(-90)">{title}</text>'


def _drawn(mark: Point | Bar, axis: Axis, length: int) -> str:
    title = f"<title>{escape(mark.label)}</title>"
    kind = escape(mark.kind, quote=True)
    if isinstance(mark, Point):
        where = f'cx="{_x(mark.at, length):.1f}" cy="{axis.y(mark.number):.1f}"'
        return f'<circle class="{kind}" {where} r="2.6">{title}</circle>'
    x = _x(mark.at + mark.shift, length)
    top, bottom = axis.y(mark.high), axis.y(mark.low)
    bottom = max(bottom, top + 1)  # a single number is seen, too
    return f'<path class="{kind}" d="M{x:.1f} {top:.1f}V{bottom:.1f}">{title}</path>'
