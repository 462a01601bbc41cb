"""What targets make of a model, on screen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from vlmpass.ir_tools.targets import Support
from vlmpass.ir_tools.targets.findings import Finding
from vlmpass.ir_tools.targets.lint import Remark
from vlmpass.screens.text import Grid, count, grid, unbroken
from vlmpass.suits import Suits

__all__ = ["remarks_screen", "targets_screen"]

_ROWS = 40
"""Of how many findings or operators a table has rows; JSON has all."""


def targets_screen(found: Sequence[Suits]) -> RenderableType:
    """Return a line for each target, its findings, and a table of operators and targets."""
    parts: list[RenderableType] = []
    for each in found:
        parts.append(_headline(each))
        if not each.ok and not each.assessment.findings:
            parts.append(Text(f"{each.reason}; {each.remedy}"))
        parts += _findings(each)
        parts += _partition(each)
        parts += [Text(each.newer, style="yellow")] if each.newer else []
    if len(found) > 1 and any(each.assessment.findings for each in found):
        parts += [Text(""), _operators(found)]
    return Group(*parts)


def remarks_screen(remarks: Sequence[Remark]) -> RenderableType:
    """Return what is odd about a model."""
    table = grid("remark", "nodes", "what", whole=(0,), right=(1,))
    for each in remarks[:_ROWS]:
        what = "; ".join(filter(None, (each.reason, each.remedy)))
        table.line(each.kind, count(len(each.nodes)), f"{each.nodes[0]}: {what}")
    return table


def _headline(found: Suits) -> Text:
    name, told = found.assessment.target, found.assessment
    if not found.ok:
        nodes = sum(len(f.nodes) for f in told.findings if f.support is not Support.UNKNOWN)
        of = f": {count(nodes)} of {count(told.nodes)} nodes" if nodes else ""
        return unbroken(f"{name}: ", ("does not take it", "red"), of)
    if found.loaded:
        return unbroken(f"{name}: ", ("loads it", "green"))
    how = "reads its versions; nothing here loads for it"
    if not told.unknown:
        how = f"takes all {count(told.nodes)} nodes by its profile; nothing here loads for it"
        return unbroken(f"{name}: ", (how, "green"))
    rest = f"; nothing is known of {count(told.unknown)} of {count(told.nodes)} nodes"
    return unbroken(f"{name}: ", (how, "yellow"), rest)


def _findings(found: Suits) -> Iterator[RenderableType]:
    told = found.assessment.findings
    if not told:
        return
    table = grid("", "operator", "nodes", "why, and what helps", whole=(0,), right=(2,))
    for each in told[:_ROWS]:
        table.line(each.support.word, _operator(each), _count(each), _why(each))
    yield table
    if len(told) > _ROWS:
        yield Text(f"and {count(len(told) - _ROWS)} more; --json has all", style="dim")
    follow = found.assessment.consequences
    if follow:
        nodes = "node" if follow == 1 else "nodes"
        yield Text(f"{count(follow)} {nodes} behind these could not be judged", style="dim")


def _operator(found: Finding) -> str:
    since = "" if found.since is None else f"-{found.since}"
    return f"{found.operator or 'the model'}{since}"


def _count(found: Finding) -> str:
    return count(len(found.nodes)) if found.nodes else ""


def _why(found: Finding) -> str:
    where = ""
    if found.nodes:
        name, scope = found.nodes[0]
        where = f"{name} in {scope}: " if scope else f"{name}: "
    return f"{where}{found.reason}; {found.remedy}"


def _partition(found: Suits) -> Iterator[RenderableType]:
    parts = found.assessment.parts
    if parts is None or not parts.fallen:
        return
    share = "" if parts.share is None else f", {parts.share:.1%} of the multiply-accumulates"
    yield Text(
        f"{count(parts.taken)} parts run there and {count(parts.fallen)} fall back: "
        f"{count(parts.fallen_nodes)} nodes{share}"
    )


def _operators(found: Sequence[Suits]) -> Grid:
    """Return which operators not all targets run, with the worst that each says."""
    table = grid("operator", *(each.assessment.target for each in found), whole=(0,))
    names = sorted({name for each in found for name in each.assessment.operators})
    rows = [(name, [_worst(each, name) for each in found]) for name in names]
    told = [row for row in rows if any(not cell.runs for cell in row[1])]
    for name, cells in told[:_ROWS]:
        table.line(name, *(cell.word for cell in cells))
    return table


def _worst(found: Suits, name: str) -> Support:
    kinds = found.assessment.operators[name]
    if found.loaded and max(kinds) is not Support.WRONG:
        return min(max(kinds), Support.AUTOMATIC)
    return max(kinds)
