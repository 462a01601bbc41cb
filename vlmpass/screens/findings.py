"""What was found in a pipeline, a model or between two, on screen."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from vlmpass.bisecting import BisectReport
from vlmpass.ir_tools.inspecting.change import Change, Difference
from vlmpass.reducing import ReduceReport
from vlmpass.screens.text import count, grid, size, unbroken

__all__ = ["bisect_screen", "diff_screen", "reduce_screen"]

_MOST = 20


def bisect_screen(found: BisectReport) -> RenderableType:
    """Return the change that makes a model wrong."""
    made = f"{count(found.changes)} changes, {count(found.runs)} runs"
    if not found.found:
        return Text.assemble(("nothing is wrong", "bold green"), f" after all of {made}")
    table = grid("", "", whole=(0,))
    table.line("pass", Text(found.pass_text, style="bold"))
    if found.rule:
        table.line("rule", Text(found.rule, style="bold red"))
    else:
        table.line("rule", Text("none: all that the pass does is one change", style="dim"))
    if found.node:
        table.line("node", Text(found.node))
    table.line("wrong", Text(found.why, style="red"))
    table.line("change", Text(f"{count(found.number)} of {made}"))
    parts: list[RenderableType] = [table]
    for what, text in (("before", found.before), ("after", found.after)):
        if text:
            parts += ["", Text(what, style="dim"), *map(unbroken, text.rstrip().splitlines())]
    parts += ["", unbroken("replay      ", found.replay)]
    if found.reproducer is not None:
        parts.append(unbroken("reproducer  ", (found.reproducer, "bold")))
    if found.inputs is not None:
        parts.append(unbroken("inputs      ", found.inputs))
    return Group(*parts)


def reduce_screen(found: ReduceReport) -> RenderableType:
    """Return what is left of a model that fails."""
    table = grid("left", "nodes", right=(1,))
    for step, nodes in found.nodes.items():
        table.line(step, count(nodes))
    parts: list[RenderableType] = [table, "", *map(unbroken, found.text.rstrip().splitlines()), ""]
    if found.sizes:
        told = ", ".join(f"{old} -> {new}" for old, new in found.sizes.items())
        parts.append(Text(f"smaller sizes: {told}"))
    if found.replaced:
        parts.append(Text(f"{count(len(found.replaced))} weights are ones: values do not matter"))
    if found.told:
        parts.append(Text(f"the check {found.told}", style="red"))
    written = sum(file.nbytes for file in found.saved.files)
    tail = f"  {size(written)}, {count(found.tried)} models tried"
    return Group(*parts, unbroken("written  ", (found.saved.path, "bold"), tail))


def diff_screen(found: Difference) -> RenderableType:
    """Return what two models do not have in common."""
    parts: list[RenderableType] = []
    for what, changes in (
        ("model", found.model),
        ("inputs and outputs", found.interface),
        ("nodes", found.nodes),
        ("types inside", found.values),
        ("weights", found.weights),
    ):
        parts += _changes(what, changes)
    if found.operators:
        table = grid("operator", "A", "B", right=(1, 2))
        for name, (one, two) in found.operators.items():
            table.line(name, count(one), count(two))
        parts += [table, ""]
    for sign, style, names in (("-", "red", found.removed), ("+", "green", found.added)):
        parts += [Text(f"{sign} {name}", style=style) for name in names[:_MOST]]
        if len(names) > _MOST:
            parts.append(Text(f"{sign} {count(len(names) - _MOST)} more", style=style))
    alike = f"{count(found.same)} nodes are alike"
    if found.renamed:
        alike += f", {count(len(found.renamed))} names are others"
    verdict = ("equal", "bold green") if found.ok else ("different", "bold red")
    return Group(*parts, Text.assemble(verdict, f": {alike}"))


def _changes(what: str, changes: Sequence[Change]) -> list[RenderableType]:
    if not changes:
        return []
    table = grid(what, "", "A", "B")
    for each in changes[:_MOST]:
        table.line(Text(each.name), Text(each.what), Text(each.before), Text(each.after))
    if len(changes) > _MOST:
        table.line(f"and {count(len(changes) - _MOST)} more", "", "", "")
    return [table, ""]
