"""Models that were cut out, cut up or joined, on screen."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from vlmpass.part_reports import PartReport, SplitReport
from vlmpass.screens.text import count, grid, size, unbroken

__all__ = ["part_screen", "split_screen"]


def part_screen(found: PartReport) -> RenderableType:
    """Return what one model takes and gives, and where it was written."""
    ends = grid("", "", "", whole=(0,))
    for what, types in (("takes", found.inputs), ("gives", found.outputs)):
        for index, (name, kind) in enumerate(types.items()):
            ends.line(what if index == 0 else "", Text(name), Text(kind, style="dim"))
    weights = f"{count(found.nodes)} nodes, {size(found.nbytes)} of weights"
    return Group(ends, "", Text(weights), *_files(found))


def _files(found: PartReport) -> list[RenderableType]:
    first, *others = found.saved.files
    told = [unbroken("written  ", (found.saved.path, "bold"), f"  {size(first.nbytes)}")]
    told += [unbroken(f"{file.how:7}  {file.name}  {size(file.nbytes)}") for file in others]
    return list(told)


def split_screen(found: SplitReport) -> RenderableType:
    """Return the parts of a model in their order, and what goes from one to the next."""
    table = grid("part", "nodes", "weights", "takes", "gives", right=(1, 2))
    for part in found.parts:
        table.line(
            Text(part.name, style="bold"),
            count(part.nodes),
            size(part.nbytes),
            count(len(part.inputs)),
            count(len(part.outputs)),
        )
    saved = [part.saved for part in found.parts] + ([found.store] if found.store else [])
    written = sum(each.nbytes for each in saved)
    told = unbroken("manifest  ", (found.manifest, "bold"), f"  {size(written)} written")
    return Group(table, "", told)
