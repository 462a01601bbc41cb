"""`vlmpass passes`: what can be written in a pipeline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from vlmpass.cli.console import show, show_json
from vlmpass.cli.verb import DONE, verb

if TYPE_CHECKING:
    from vlmpass.passes import Pass

__all__ = ["passes"]


@verb
def passes(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Show this one.", show_default=False)
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print them as JSON.")] = False,
) -> int:
    """List the passes, or show one with its options.

    A pipeline is passes in order, such as 'unify-dtype{to=float32},convert-opset{to=18}'.
    """
    from vlmpass.passes.registry import PASSES
    from vlmpass.presets import nearest

    if name is not None and name not in PASSES:
        raise nearest(name, PASSES, "pass")
    chosen = {key: PASSES[key] for key in PASSES if name in (None, key)}
    if json:
        show_json([_data(cls) for cls in chosen.values()])
    elif name is not None:
        _show_one(chosen[name])
    else:
        _show_all(chosen)
    return DONE


def _data(cls: type[Pass]) -> dict[str, object]:
    from vlmpass.passes.options import options_of, summary_of

    options = [
        {
            "name": "NAME" if option.free else option.name,
            "takes": option.kind.says,
            "required": option.required,
            "default": None if option.required or option.free else _written(option.default),
            "help": option.doc,
        }
        for option in options_of(cls)
    ]
    return {"name": cls.name, "summary": summary_of(cls), "options": options}


def _written(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def _show_all(chosen: dict[str, type[Pass]]) -> None:
    from rich.text import Text

    from vlmpass.passes.options import options_of, summary_of
    from vlmpass.screens.text import grid

    table = grid("pass", "", "options")
    for name, cls in chosen.items():
        options = " ".join(
            f"{option.name}=" if option.required else option.name for option in options_of(cls)
        )
        table.add_row(Text(name, style="bold"), summary_of(cls), Text(options, style="dim"))
    show(table)


def _show_one(cls: type[Pass]) -> None:
    import inspect as introspection

    from rich.console import Group
    from rich.text import Text

    from vlmpass.passes.options import options_of
    from vlmpass.screens.text import grid

    parts = [Text(cls.name, style="bold"), Text(introspection.cleandoc(cls.__doc__ or "")), Text()]
    table = grid("option", "takes", "default", "")
    options = options_of(cls)
    for option in options:
        default = "required" if option.required else ""
        if not option.required and not option.free:
            default = option.kind.write(option.default)
        label = "NAME" if option.free else option.name
        table.add_row(Text(label, style="bold"), option.kind.says, default, option.doc)
    show(Group(*parts, table if options else Text("no options", style="dim")))
