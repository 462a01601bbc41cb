"""Numbers and sizes as people read them, and the small table that every screen is made of."""

from __future__ import annotations

import io
from collections.abc import Iterable

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.padding import Padding
from rich.protocol import rich_cast
from rich.table import Table
from rich.text import Text

from vlmpass.screens.characters import fitted

__all__ = [
    "WIDTH",
    "Fitting",
    "Grid",
    "amount",
    "count",
    "fitted_screen",
    "grid",
    "megabytes",
    "plain",
    "seconds",
    "size",
    "unbroken",
]

WIDTH = 100
"""Columns of a screen that is not a terminal."""
_UNBOUNDED = 100_000


def count(number: int) -> str:
    """Return an exact count: ``19,204``."""
    return f"{number:,}"


def amount(number: float) -> str:
    """Return about how many: ``1.24 G``, ``512``."""
    for unit in ("", " k", " M", " G", " T"):
        if number < 999.5:
            return f"{number:.3g}{unit}"
        number /= 1000
    return f"{number:.3g} P"


def size(nbytes: int) -> str:
    """Return bytes with three digits: ``2.03 GB``."""
    return f"{amount(nbytes)}B" if nbytes >= 1000 else f"{nbytes} B"


def megabytes(nbytes: int) -> str:
    """Return bytes in whole megabytes, the unit that memory is compared in."""
    return f"{nbytes / 1e6:,.0f} MB"


def seconds(duration: float) -> str:
    """Return a duration: ``12 ms``, ``3.4 s``, ``2 min 5 s``."""
    if duration < 0.9995:
        return f"{duration * 1000:.0f} ms"
    if duration < 99.95:
        return f"{duration:.1f} s"
    return f"{duration // 60:.0f} min {duration % 60:.0f} s"


class Grid(Table):
    """A table whose texts are shown as they are: no markup, and nothing that cannot be encoded."""

    def line(self, *cells: RenderableType) -> None:
        """Add a row of texts."""
        self.add_row(*map(fitted_screen, cells))


class Fitting:
    """A screen, and another one for where it is wider than there is room for.

    Args:
        wide: Shown where it fits as it is, or where there is room for `least` columns.
        narrow: Shown elsewhere.
        least: Columns that are enough for the wide one, whose texts are broken then.
    """

    def __init__(self, wide: RenderableType, narrow: RenderableType, least: int) -> None:
        self._wide, self._narrow, self._least = wide, narrow, least

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Show one of them."""
        room = options.max_width
        whole = options.update_width(_UNBOUNDED)
        fits = room >= self._least or console.measure(self._wide, options=whole).maximum <= room
        yield self._wide if fits else self._narrow


def grid(*headers: str, right: Iterable[int] = (), whole: Iterable[int] = (), gap: int = 2) -> Grid:
    """Return an empty table without lines.

    Args:
        headers: Of the columns; an empty text for none.
        right: Columns with numbers, which are aligned at the right.
        whole: Columns whose texts are not broken into lines while another column can give way.
        gap: Spaces between columns.
    """
    numbers, kept = set(right), set(whole)
    table = Grid(
        box=box.SIMPLE_HEAD if any(headers) else None,
        show_header=any(headers),
        pad_edge=False,
        padding=(0, gap, 0, 0),
        show_edge=False,
        header_style="dim",
    )
    for index, header in enumerate(headers):
        table.add_column(
            header,
            justify="right" if index in numbers else "left",
            overflow="fold",
            no_wrap=index in kept,
        )
    return table


def unbroken(*parts: str | tuple[str, str]) -> Text:
    """Return a line with paths, each a text or (text, style): never wrapped, so as to be copied."""
    return Text.assemble(*parts, no_wrap=True, overflow="ignore")


def fitted_screen(screen: RenderableType) -> RenderableType:
    """Return a screen whose texts can be encoded; tables of `grid` see to their own."""
    found = rich_cast(screen)
    if isinstance(found, str):
        return Text(fitted(found))
    if isinstance(found, Text):
        return _fitted_text(found)
    if isinstance(found, Group):
        return Group(*map(fitted_screen, found.renderables))
    if isinstance(found, Padding):
        pad = (found.top, found.right, found.bottom, found.left)
        return Padding(fitted_screen(found.renderable), pad)
    return screen


def _fitted_text(text: Text) -> Text:
    if fitted(text.plain) == text.plain:
        return text
    made = text.blank_copy()
    for character in text.divide(range(1, len(text))):
        piece = Text(fitted(character.plain))
        for span in character.spans:
            piece.stylize(span.style)
        made.append_text(piece)
    return made


def plain(renderable: RenderableType, width: int = WIDTH) -> str:
    """Return what a screen shows, without colours.

    Args:
        renderable: The screen.
        width: Columns that a line may take.
    """
    console = Console(file=io.StringIO(), width=width, no_color=True, highlight=False)
    console.print(renderable, crop=False)  # `unbroken` lines are
    assert isinstance(console.file, io.StringIO)
    lines = [line.rstrip() for line in console.file.getvalue().splitlines()]
    return "\n".join(lines)
