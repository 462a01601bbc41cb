"""Numbers and sizes as people read them, and the small table that every screen is made of."""

from __future__ import annotations

import io
from collections.abc import Iterable

from rich import box
from rich.console import Console, RenderableType
from rich.table import Table

__all__ = ["WIDTH", "amount", "count", "grid", "megabytes", "plain", "seconds", "size"]

WIDTH = 100
"""Columns of a screen that is not a terminal."""


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


def grid(*headers: str, right: Iterable[int] = (), whole: Iterable[int] = ()) -> Table:
    """Return an empty table without lines.

    Args:
        headers: Of the columns; an empty text for none.
        right: Columns with numbers, which are aligned at the right.
        whole: Columns whose texts are not broken into lines while another column can give way.
    """
    numbers, unbroken = set(right), set(whole)
    table = Table(
        box=box.SIMPLE_HEAD if any(headers) else None,
        show_header=any(headers),
        pad_edge=False,
        padding=(0, 2, 0, 0),
        show_edge=False,
        header_style="dim",
    )
    for index, header in enumerate(headers):
        table.add_column(
            header,
            justify="right" if index in numbers else "left",
            overflow="fold",
            no_wrap=index in unbroken,
        )
    return table


def plain(renderable: RenderableType) -> str:
    """Return what a screen shows, without colours."""
    console = Console(file=io.StringIO(), width=WIDTH, no_color=True, highlight=False)
    console.print(renderable)
    assert isinstance(console.file, io.StringIO)
    lines = [line.rstrip() for line in console.file.getvalue().splitlines()]
    return "\n".join(lines)
