"""What a model is made of, on screen."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from rich.console import Group, RenderableType
from rich.text import Text

from vlmpass.ir_tools.inspecting import Inspection, Macs, Module, Port, as_factor
from vlmpass.ir_tools.system.listed import listed
from vlmpass.screens.text import Grid, amount, count, grid, size, unbroken

__all__ = ["inspection_screen"]

_OPERATORS = 24
_FILES = 12
_PORTS = 200
_DIMS = 24
_TERMS = 4


def inspection_screen(
    found: Inspection, path: str, *, nbytes: int, depth: int, sizes: Mapping[str, int]
) -> RenderableType:
    """Return the tables of an inspection.

    Args:
        found: The inspection.
        path: What to call the model's file.
        nbytes: Of that file.
        depth: How deep modules are listed.
        sizes: Size by symbol, at which multiply-accumulates are counted too.
    """
    # Alone in its line: a long path would leave the facts below it no room.
    parts: list[RenderableType] = [unbroken((path, "bold")), _head(found, sizes), "", _ports(found)]
    parts += ["", _operators(found), "", _weights(found)]
    parts += ["", _files(found, path, nbytes)]
    if found.largest:
        parts += ["", _largest(found)]
    if found.ties:
        parts += ["", _ties(found)]
    if found.modules and depth:
        parts += ["", _modules(found, depth, sizes)]
    return Group(*parts)


def _head(found: Inspection, sizes: Mapping[str, int]) -> Grid:
    facts = found.facts
    table = grid(*[""] * 2, whole=(0,))
    table.line("opsets", listed((f"{name} {v}" for name, v in facts.opsets.items()), 24))
    made = f", written by {facts.producer}" if facts.producer else ""
    table.line("IR version", f"{facts.ir_version}{made}")
    functions = f" in the graph and {facts.functions} functions" if facts.functions else ""
    table.line("nodes", count(facts.nodes) + functions)
    on_disk = f"{count(facts.elements)} elements, {size(facts.nbytes)}"
    table.line("weights", on_disk)
    more = f" and {len(found.dynamic) - _DIMS} more" if len(found.dynamic) > _DIMS else ""
    dynamic = ", ".join(found.dynamic[:_DIMS]) + more
    table.line("dynamic", dynamic or "no dimension")
    table.line("MACs", Text(_macs(found.macs, sizes, _TERMS)))
    return table


def _macs(macs: Macs, sizes: Mapping[str, int], terms: int) -> str:
    unknown = f", {macs.unknown} nodes of unknown shape not counted" if macs.unknown else ""
    at = macs.at(sizes)
    if at is not None:
        given = " ".join(f"{name}={number}" for name, number in sizes.items())
        return amount(at) + (f" at {given}" if given else "") + unknown
    ranked = sorted(macs.terms.items(), key=lambda item: (-item[1], item[0]))
    texts = [
        "·".join([amount(number).replace(" ", ""), *map(as_factor, symbols)])
        for symbols, number in ranked[:terms]
    ]
    if len(ranked) > terms:
        texts.append(f"{len(ranked) - terms} more terms")
    return (" + ".join(texts) or "none") + unknown


def _ports(found: Inspection) -> Grid:
    table = grid("", "name", "type", "shape")
    for what, ports in (("input", found.inputs), ("output", found.outputs)):
        for port in ports[:_PORTS]:
            table.line(Text(what, style="dim"), Text(port.name), port.dtype, Text(_shape(port)))
        if len(ports) > _PORTS:
            table.line("", Text(f"and {count(len(ports) - _PORTS)} more", style="dim"), "", "")
    return table


def _shape(port: Port) -> str:
    return "unknown" if port.shape is None else f"[{', '.join(map(str, port.shape))}]"


def _operators(found: Inspection) -> RenderableType:
    operators = list(found.facts.operators.items())
    columns = 3
    shown = operators[:_OPERATORS]
    rows = -(-len(shown) // columns)
    table = grid(*["nodes", "operator"] * columns, right=range(0, 2 * columns, 2))
    for row in range(rows):
        cells: list[RenderableType] = []
        for name, number in shown[row::rows]:
            cells += [count(number), Text(name)]
        table.line(*cells)
    if len(operators) <= _OPERATORS:
        return table
    rest = operators[_OPERATORS:]
    nodes = sum(number for _, number in rest)
    more = Text(f"and {len(rest)} more operators, {count(nodes)} nodes", style="dim")
    return Group(table, more)


def _weights(found: Inspection) -> Grid:
    table = grid("element type", "tensors", "elements", "bytes", right=(1, 2, 3))
    for name, share in found.facts.dtypes.items():
        table.line(name, count(share.tensors), count(share.elements), size(share.nbytes))
    return table


def _files(found: Inspection, path: str, nbytes: int) -> Grid:
    table = grid("file", "tensors", "used", "size", right=(1, 2, 3))
    inline = sum(share.tensors for share in found.facts.dtypes.values())
    inline -= sum(file.tensors for file in found.files)
    table.line(
        Text(os.path.basename(path)),
        count(inline),
        size(found.inline_bytes),
        size(nbytes),
    )
    shown = found.files if len(found.files) <= _FILES + 1 else found.files[:_FILES]
    for file in shown:
        name = Text(os.path.basename(file.path))
        table.line(name, count(file.tensors), size(file.used), size(file.nbytes))
    if rest := found.files[len(shown) :]:
        used, nbytes = sum(file.used for file in rest), sum(file.nbytes for file in rest)
        tensors = sum(file.tensors for file in rest)
        table.line(f"and {count(len(rest))} more", count(tensors), size(used), size(nbytes))
    return table


def _largest(found: Inspection) -> Grid:
    table = grid("largest weights", "type", "shape", "bytes", right=(3,))
    for weight in found.largest:
        shape = "x".join(map(str, weight.shape)) or "scalar"
        table.line(Text(weight.name), weight.dtype, shape, size(weight.nbytes))
    return table


def _ties(found: Inspection) -> Grid:
    table = grid("shared weights", "bytes", "used by", right=(1,))
    for tie in found.ties[:10]:
        users = ", ".join(tie.users[:3]) + (" …" if len(tie.users) > 3 else "")
        table.line(Text(listed(tie.names)), size(tie.nbytes), Text(users))
    return table


def _modules(found: Inspection, depth: int, sizes: Mapping[str, int]) -> Grid:
    """List modules down to a depth; numbered siblings of one kind are one line."""
    groups: dict[str, Module] = {}
    members: dict[str, set[str]] = {}
    for module in found.modules:
        head = ".".join(module.path.split(".")[:depth]) if module.path else "(no module)"
        kind = re.sub(r"(?<=\.)\d+(?=\.|$)", "*", head)
        members.setdefault(kind, set()).add(head)
        group = groups.setdefault(kind, Module(kind))
        group.nodes += module.nodes
        group.elements += module.elements
        group.nbytes += module.nbytes
        group.macs.add(module.macs)
    table = grid("module", "times", "nodes", "elements", "MACs", right=(1, 2, 3), whole=(0,))
    for kind, group in groups.items():
        times = str(len(members[kind])) if len(members[kind]) > 1 else ""
        macs = _macs(group.macs, sizes, 2) if group.macs.terms or group.macs.unknown else ""
        weights = amount(group.elements) if group.elements else ""
        table.line(Text(kind), times, count(group.nodes), weights, Text(macs))
    return table
