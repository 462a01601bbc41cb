"""Plots of one value after another, as SVG that stands in a page."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape

__all__ = ["Axis", "Bar", "Point", "linear_near_zero", "plot", "powers"]

_WIDTH, _HEIGHT = 960, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 14, 12, 34
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


def plot(
    axis: Axis,
    length: int,
    marks: Sequence[Point | Bar],
    *,
    name: str,
    line: Sequence[tuple[float, float]] = (),
    first: int | None = None,
) -> str:
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
    label = escape(name, quote=True)
    head = f'<svg role="img" aria-label="{label}" viewBox="0 0 {_WIDTH} {_HEIGHT}">'
    return "\n".join([head, *drawn, "</svg>"])


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
