"""The report of a conversion on screen: before and after, passes, files, what was verified."""

from __future__ import annotations

import os
from collections import Counter

from rich.console import Group, RenderableType
from rich.text import Text

from vlmpass.ir_tools.inspecting import Facts
from vlmpass.passes import PassReport
from vlmpass.report import Checked, Report, Snapshot
from vlmpass.screens.text import Grid, count, grid, megabytes, seconds, size, unbroken
from vlmpass.screens.verification import numbers_line, rounded_line
from vlmpass.stages import Stage

__all__ = ["report_screen"]

_OPERATORS = 6
_FILES = 12
_DONE = {how: how for how in ("written", "copied", "kept", "removed")}
_PLANNED = {"written": "to write", "copied": "to copy", "kept": "kept", "removed": "to remove"}


def report_screen(report: Report) -> RenderableType:
    """Return the report as tables, one under the other."""
    parts: list[RenderableType] = [_headline(report), "", _comparison(report)]
    if report.passes:
        parts += ["", _passes(report.passes)]
    if report.stages:
        parts += ["", _stages(report.stages)]
    if report.saved is not None:
        parts += ["", _files(report)]
    return Group(*parts, "", _verdict(report))


def _headline(report: Report) -> Text:
    source = report.source or "model"
    if report.saved is None:
        return unbroken((source, "bold"))
    return unbroken((source, "bold"), " → ", (_shown(report.saved.path), "bold"))


def _shown(path: str) -> str:
    """Return a path relative to the current folder where that is shorter."""
    try:
        relative = os.path.relpath(path)
    except ValueError:  # another drive
        return path
    return relative if len(relative) < len(path) else path


def _comparison(report: Report) -> Grid:
    before, after = report.before, report.after
    table = grid("", "before", "after", "")
    for label, old, new in _rows(before, after):
        changed = old != new
        table.line(Text(label, style="dim"), old, Text(new, style="bold" if changed else ""), "")
    if lines := _operator_changes(before.facts, after.facts):
        table.line(Text("operators", style="dim"), *_columns(before.facts, after.facts), lines)
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


def _passes(passes: tuple[PassReport, ...]) -> Grid:
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
        what = Text(each.text)
        if each.needed_by:
            what.append(f", which {each.needed_by.partition('{')[0]} needs", "dim")
        table.line(what, f"{each.seconds:.2f}", nodes, megabytes(each.peak_rss))
    return table


def _stages(stages: tuple[Stage, ...]) -> Grid:
    table = grid("outside the passes", "seconds", "share", "memory", right=(1, 2, 3))
    total = sum(each.seconds for each in stages) or 1.0
    for each in stages:
        if each.name != "passes":
            share = f"{each.seconds / total:.0%}"
            table.line(each.name, f"{each.seconds:.2f}", share, megabytes(each.peak_rss))
    return table


def _files(report: Report) -> Grid:
    assert report.saved is not None
    table = grid("file", "size", "", right=(1,))
    says = _PLANNED if report.planned else _DONE
    rows = [(file.name, file.nbytes, str(file.how)) for file in report.saved.files]
    removed = [(name, 0, "removed") for name in report.saved.removed]
    for some in (rows, removed):
        shown = some if len(some) <= _FILES + 1 else some[:_FILES]
        for name, nbytes, how in shown:
            table.line(Text(name), "" if how == "removed" else size(nbytes), _dim(says[how]))
        if rest := some[len(shown) :]:
            total = sum(nbytes for _, nbytes, _ in rest)
            counted = Counter(says[how] for *_, how in rest)
            hows = ", ".join(f"{count(n)} {how}" for how, n in counted.items())
            table.line(f"and {count(len(rest))} more", size(total) if total else "", _dim(hows))
    return table


def _dim(text: str) -> Text:
    return Text(text, style="dim")


def _verdict(report: Report) -> Grid:
    """Return what a reader should know, what it took, and last what was verified."""
    lines = grid("", "", whole=(0,), gap=3)
    numbers = report.checked.numbers
    lines.line("types", Text("full type check passed", style="green"))
    for note in (*report.notes, *(numbers.notes if numbers is not None else ())):
        lines.line("note", Text(note, style="yellow"))
    memory = megabytes(report.peak_rss)
    lines.line("took", f"{seconds(report.seconds)}, peak memory {memory}")
    if report.planned and report.saved is not None:
        told = f"nothing: a dry run; {size(report.saved.nbytes)} would be"
        lines.line("written", Text(told, style="yellow"))
    lines.line("verified", _verified(report.checked))
    return lines


def _verified(checked: Checked) -> Text:
    """Return what of the result was tried and what was not, in one line."""
    there = checked.loaded.there
    return Text.assemble(_tried(checked), f"; {there}" if there else "")


def _tried(checked: Checked) -> Text:
    loaded, numbers = checked.loaded, checked.numbers
    if numbers is None:
        what = {True: "loaded, not compared", None: "not compared"}
        head = what.get(loaded.ok, "not loaded by ONNX Runtime, not compared")
        return Text(f"{head}: {checked.reason}", style="yellow")
    line = numbers_line(numbers, exact=loaded.ok is not False)
    if checked.rounded is not None:
        line = Text.assemble(line, "; ", rounded_line(checked.rounded))
    if loaded.ok:
        return Text.assemble(("loaded, ", "green"), line)
    if loaded.ok is None:
        return line
    return Text.assemble(line, (f"; not loaded by ONNX Runtime, {loaded.reason}", "yellow"))
