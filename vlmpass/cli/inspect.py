"""`vlmpass inspect`: what a model is made of."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vlmpass.cli.console import say, show, show_json
from vlmpass.cli.verb import DONE, verb

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["inspect"]


@verb
def inspect(
    model: Annotated[Path, typer.Argument(metavar="MODEL", show_default=False)],
    at: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=SIZE",
            help="Size of a dynamic dimension, to count multiply-accumulates at; repeatable.",
            show_default=False,
        ),
    ] = None,
    depth: Annotated[
        int, typer.Option(metavar="N", help="How deep modules are listed; 0 for not at all.")
    ] = 4,
    json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> int:
    """Show what a model is made of: inputs, operators, types, weights, files, modules, cost.

    No weight is read, so that a model of any size takes a moment.
    """
    from vlmpass.ir_tools.inspecting import inspect_model
    from vlmpass.ir_tools.load import load
    from vlmpass.report import to_data
    from vlmpass.screens.inspection import inspection_screen

    sizes = _sizes(at or ())
    opened = load(model)
    found = inspect_model(opened, shaped=_shaped(opened))
    if json:
        data = to_data(found)
        assert isinstance(data, dict)
        data["macs"] = {"text": found.macs.text, "at": found.macs.at(sizes), **data["macs"]}
        show_json({"path": str(model), "nbytes": model.stat().st_size, "sizes": sizes, **data})
    else:
        show(inspection_screen(found, str(model), depth=depth, sizes=sizes))
    return DONE


def _shaped(model: ir.Model) -> ir.Model:
    """Return a copy with functions inlined and shapes inferred, as far as the model allows."""
    from vlmpass.ir_tools.clone import clone
    from vlmpass.ir_tools.errors import VlmpassError
    from vlmpass.passes import PassManager, parse

    shaped = clone(model)
    try:
        PassManager(parse("inline-functions,infer")).run(shaped, in_place=True)
    except VlmpassError as error:
        say(f"vlmpass: note: only declared shapes are known: {error.problem}")
        return model
    return shaped


def _sizes(texts: list[str] | tuple[()]) -> dict[str, int]:
    from vlmpass.ir_tools.errors import PipelineError

    sizes: dict[str, int] = {}
    for text in texts:
        name, _, number = text.partition("=")
        if not name or not number.isdigit():
            raise PipelineError(f"--at takes NAME=SIZE, not '{text}'", remedy="write --at batch=1")
        sizes[name] = int(number)
    return sizes
