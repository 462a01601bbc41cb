"""The report of a conversion on screen: before and after, passes, files, what was verified."""

from __future__ import annotations

import os

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from vlmpass.ir_tools.inspecting import Facts
from vlmpass.passes import PassReport
from vlmpass.report import Report, Snapshot
from vlmpass.screens.text import count, grid, megabytes, seconds, size
from vlmpass.screens.verification import numbers_line

__all__ = ["report_screen"]

_OPERATORS = 6


def report_screen(report: Report) -> RenderableType:
    """Return the report as tables, one under the other."""
    parts: list[RenderableType] = [_headline(report), "", _comparison(report)]
    if report.passes:
        parts += ["", _passes(report.passes)]
    if report.saved is not None:
        parts += ["", _files(report)]
    return Group(*parts, "", _verdict(report))


def _headline(report: Report) -> Text:
    source = report.source or "model"
    if report.saved is None:
        return Text(source, style="bold")
    return Text.assemble((source, "bold"), " → ", (_shown(report.saved.path), "bold"))


def _shown(path: str) -> str:
    """Return a path relative to the current folder where that is shorter."""
    try:
        relative = os.path.relpath(path)
    except ValueError:  # another drive
        return path
    return relative if len(relative) < len(path) else path


def _comparison(report: Report) -> Table:
    before, after = report.before, report.after
    table = grid("", "before", "after", "")
    for label, old, new in _rows(before, after):
        changed = old != new
        table.add_row(Text(label, style="dim"), old, Text(new, style="bold" if changed else ""), "")
    if lines := _operator_changes(before.facts, after.facts):
        table.add_row(Text("operators", style="dim"), *_columns(before.facts, after.facts), lines)
    return table


def _columns(before: Facts, after: Facts) -> tuple[str, str]:
    return f"{len(before.operators)} kinds", f"{len(after.operators)} kinds"


def _rows(before: Snapshot, after: Snapshot) -> list[tuple[str, str, str]]:
    old, new = before.facts, after.facts
    return [
        ("opset", _opset(old), _opset(new)),
        ("IR version", str(old.ir_version), str(new.ir_version)),
        ("nodes", count(old.nodes), count(new.nodes)),
        ("weights", _weights(old), _weights(new)),
        ("on disk", _on_disk(before), _on_disk(after)),
    ]


def _opset(facts: Facts) -> str:
    others = [f"{name} {v}" for name, v in facts.opsets.items() if name != "ai.onnx"]
    return ", ".join([str(facts.opset if facts.opset is not None else "-"), *others])


def _weights(facts: Facts) -> str:
    shares = [
        f"{name} {size(share.nbytes)}"
        for name, share in facts.dtypes.items()
        if share.nbytes * 1000 >= facts.nbytes
    ]
    return "\n".join(shares) or "none"


def _on_disk(snapshot: Snapshot) -> str:
    shards = snapshot.shards
    tail = "" if shards == 0 else f" in {shards} data file{'s' if shards > 1 else ''}"
    return size(snapshot.nbytes) + tail


def _operator_changes(before: Facts, after: Facts) -> str:
    """Return the operators whose numbers changed most, as ``Gelu 24 → 0``."""
    names = {**before.operators, **after.operators}
    changes = {
        name: (before.operators.get(name, 0), after.operators.get(name, 0)) for name in names
    }
    moved = [name for name, (old, new) in changes.items() if old != new]
    moved.sort(key=lambda name: -abs(changes[name][1] - changes[name][0]))
    texts = [f"{name} {changes[name][0]} → {changes[name][1]}" for name in moved[:_OPERATORS]]
    if len(moved) > _OPERATORS:
        texts.append(f"and {len(moved) - _OPERATORS} more")
    return ", ".join(texts)


def _passes(passes: tuple[PassReport, ...]) -> Table:
    table = grid("pass", "seconds", "nodes", "memory", right=(1, 3))
    for each in passes:
        if each.skipped:
            nodes = "skipped"
        elif not each.changed:
            nodes = "unchanged"
        elif each.nodes_before == each.nodes_after:
            nodes = count(each.nodes_after)
        else:
            nodes = f"{count(each.nodes_before)} → {count(each.nodes_after)}"
        table.add_row(Text(each.text), f"{each.seconds:.2f}", nodes, megabytes(each.peak_rss))
    return table


def _files(report: Report) -> Table:
    assert report.saved is not None
    table = grid("file", "size", "", right=(1,))
    for file in report.saved.files:
        table.add_row(Text(file.name), size(file.nbytes), Text(file.how, style="dim"))
    for name in report.saved.removed:
        table.add_row(Text(name), "", Text("removed", style="dim"))
    return table


def _verdict(report: Report) -> Table:
    """Return what was verified, what a reader should know, and what it took."""
    lines = Table.grid(padding=(0, 3, 0, 0))
    numbers = report.checked.numbers
    lines.add_row("types", Text("full type check passed", style="green"))
    if numbers is not None:
        lines.add_row("numbers", numbers_line(numbers))
    else:
        lines.add_row("numbers", Text(f"not compared: {report.checked.reason}", style="yellow"))
    for note in (*report.notes, *(numbers.notes if numbers is not None else ())):
        lines.add_row("note", Text(note, style="yellow"))
    memory = megabytes(report.peak_rss)
    lines.add_row("took", f"{seconds(report.seconds)}, peak memory {memory}")
    return lines
