"""`vlmpass passes`: what can be written in a pipeline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from vlmpass.cli.completing import among, pass_names
from vlmpass.cli.console import show, show_json
from vlmpass.cli.verb import DONE, verb

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vlmpass.ir_tools.errors import PipelineError
    from vlmpass.passes import Pass

__all__ = ["passes"]


@verb
def passes(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME",
            help="Show this one.",
            show_default=False,
            autocompletion=among(pass_names),
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print them as JSON.")] = False,
) -> int:
    """List the passes, or show one with its options.

    A pipeline is passes in order, such as 'unify-dtype{to=float32},convert-opset{to=18}'.
    """
    from vlmpass.options import nearest
    from vlmpass.passes.pipeline.registry import PASSES

    if name is not None and name not in PASSES:
        raise nearest(name, PASSES, "pass")
    if name is not None:
        _show_one(PASSES[name], json)
        return DONE
    found = {key: _loaded(PASSES, key) for key in PASSES}
    if json:
        show_json([_data(key, each) for key, each in found.items()])
    else:
        _show_all(found)
    return DONE


def _loaded(registry: Mapping[str, type[Pass]], name: str) -> type[Pass] | PipelineError:
    """Return a pass, or why it cannot be loaded: a broken package hides nobody else's passes."""
    from vlmpass.ir_tools.errors import PipelineError

    try:
        return registry[name]
    except PipelineError as error:
        return error


def _data(name: str, found: type[Pass] | PipelineError) -> dict[str, object]:
    from vlmpass.passes.pipeline.options import summary_of

    if not isinstance(found, type):
        return {"name": name, "error": str(found)}
    needs = sorted(each.value for each in found.needs)
    summary = summary_of(found)
    return {"name": name, "summary": summary, "needs": needs, "options": _options(found)}


def _options(cls: type[Pass]) -> list[dict[str, object]]:
    from vlmpass.passes.pipeline.options import options_of

    return [
        {
            "name": "NAME" if option.free else option.name,
            "takes": option.kind.says,
            "required": option.required,
            "default": None if option.required or option.free else _written(option.default),
            "help": option.doc,
        }
        for option in options_of(cls)
    ]


def _written(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def _show_all(found: Mapping[str, type[Pass] | PipelineError]) -> None:
    from rich.text import Text

    from vlmpass.passes.pipeline.options import options_of, summary_of
    from vlmpass.screens.text import grid

    table = grid("pass", "what it does, and its options", whole=(0,))
    for name, each in found.items():
        if not isinstance(each, type):
            table.line(Text(name, style="bold"), Text(str(each), style="red"))
            continue
        words = [f"{each.name}=" if each.required else each.name for each in options_of(each)]
        small = f"\n{' '.join(words)}" if words else ""
        lines = Text.assemble(summary_of(each), (small, "dim"))
        table.line(Text(name, style="bold"), lines)
    show(table)


def _show_one(cls: type[Pass], json: bool) -> None:
    import inspect as introspection

    from rich.console import Group
    from rich.text import Text

    from vlmpass.passes.pipeline.options import options_of
    from vlmpass.screens.text import grid

    if json:
        show_json(_data(cls.name, cls))
        return
    parts = [Text(cls.name, style="bold"), Text(introspection.cleandoc(cls.__doc__ or "")), Text()]
    for need in cls.needs:
        parts += [Text(f"Needs {need.value}: {need.says}."), Text()]
    table = grid("option", "takes", "default", "")
    options = options_of(cls)
    for option in options:
        default = "required" if option.required else ""
        if not option.required and not option.free:
            default = option.kind.write(option.default)
        label = "NAME" if option.free else option.name
        table.line(Text(label, style="bold"), option.kind.says, default, option.doc)
    show(Group(*parts, table if options else Text("no options", style="dim")))
