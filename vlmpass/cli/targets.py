"""`vlmpass targets`: what a model can be converted for."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vlmpass.cli.completing import among
from vlmpass.cli.console import show, show_json
from vlmpass.cli.verb import DONE, verb
from vlmpass.options import target_names

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vlmpass.ir_tools.targets import Profile

__all__ = ["targets"]


@verb
def targets(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[show|probe] NAME",
            help="Show this one, or a .toml file; or ask the runtime that is installed.",
            show_default=False,
            autocompletion=among(target_names),
        ),
    ] = None,
    of: Annotated[str | None, typer.Argument(hidden=True, help="See NAME.")] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Where to write what probe finds.",
            show_default=False,
        ),
    ] = None,
    sample: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="With probe: how many of onnx's tests of single nodes are run; by default all.",
            min=1,
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Which of them.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print them as JSON.")] = False,
) -> int:
    """List what a model can be converted for, show one with what it takes, or probe one.

    A target of your own is a TOML file: vlmpass convert --target mine.toml. Probing takes a minute
    for ort-cpu and ort-web-wasm, more for others.
    """
    from vlmpass.ir_tools.targets import profiles
    from vlmpass.options import profile_of

    if name == "probe" and of is not None:
        return _probe(of, output, json, sample, seed)
    name = of if name == "show" and of is not None else name
    found = list(profiles().values()) if name is None else [profile_of(name)]
    if json:
        data = [_data(each) for each in found]
        show_json(data if name is None else data[0])
    elif name is None:
        _show_all(found)
    else:
        _show_one(found[0])
    return DONE


def _probe(name: str, output: Path | None, json: bool, sample: int | None, seed: int) -> int:
    """Ask a runtime, say what differs from its profile, and write the new one where asked."""
    from vlmpass.ir_tools.targets.refresh import probe
    from vlmpass.screens.text import grid

    found = probe(name, sample, seed)
    if output is not None:
        output.write_text(found.text, encoding="utf-8")
    if json:
        show_json({each.name: getattr(found, each.name) for each in fields(found)})
        return DONE
    table = grid("probe", name, whole=(0,))
    table.line("asked", f"{found.wheel}; the profile is of {found.before}")
    table.line("reads", f"opset {found.opset}, ir_version {found.ir_version} at most")
    table.line("tried", f"{found.sessions} models, {len(found.apart)} not as the profile says")
    for what in ("added", "changed", "lost"):
        table.line(what, ", ".join(getattr(found, what)) or "none")
    for each in found.apart:
        table.line("apart", each)
    if output is not None:
        table.line("written", str(output))
    show(table)
    return DONE


def _data(found: Profile) -> dict[str, object]:
    """Return a profile as it can be printed, its operators counted."""
    kept = {each.name: getattr(found, each.name) for each in fields(found)}
    words = {name: support.word for name, support in found.unlisted.items()}
    count = len(found.operators)
    return {**kept, "functions": found.functions.word, "unlisted": words, "operators": count}


def _show_all(found: Sequence[Profile]) -> None:
    from vlmpass.screens.text import grid

    table = grid("target", "what it is", "reads opset", "ir_version", whole=(0,))
    for each in found:
        opsets = f"{each.lowest_opset} to {each.opset}"
        table.line(each.name, each.about, opsets, str(each.ir_version))
    show(table)


def _show_one(found: Profile) -> None:
    from vlmpass.ir_tools.targets.installed import newer
    from vlmpass.screens.text import grid

    loads = f"{found.runtime or found.loader} loads every result before it is written"
    loads += "" if found.runtime else ", where it is installed"
    table = grid("target", found.name, whole=(0,))
    table.line("what", found.about)
    table.line(
        "reads", f"opset {found.lowest_opset} to {found.opset}, ir_version {found.ir_version}"
    )
    loaded = found.runtime or found.loader
    table.line("loading", loads if loaded else "not tried: nothing here loads for it")
    if found.operators:
        table.line("operators", f"{len(found.operators)} are listed")
    table.line("source", found.source)
    if found.probed:
        again = newer(found) or f"vlmpass targets probe {found.asked} asks again"
        table.line("probed", f"{found.probed}; {again}")
    show(table)
