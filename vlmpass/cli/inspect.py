"""`vlmpass inspect`: what a model is made of."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vlmpass.cli.console import show, show_json
from vlmpass.cli.piped import model_given, path_given
from vlmpass.cli.shaped import shaped
from vlmpass.cli.verb import DONE, verb

if TYPE_CHECKING:
    from vlmpass.ir_tools.inspecting import Inspection

__all__ = ["inspect"]


@verb
def inspect(
    model: Annotated[
        Path,
        typer.Argument(
            metavar="MODEL",
            help="- reads standard input.",
            parser=path_given,
            show_default=False,
        ),
    ],
    at: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=SIZE",
            help="Size of a dynamic dimension, to count multiply-accumulates at; repeatable.",
            show_default=False,
        ),
    ] = None,
    depth: Annotated[
        int, typer.Option(metavar="N", min=0, help="How deep modules are listed; 0 for not at all.")
    ] = 4,
    json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
    precisions: Annotated[
        bool,
        typer.Option(
            "--precisions",
            help="Print as JSON, instead, what each node computes in, for scripts that build"
            " TensorRT engines.",
        ),
    ] = False,
) -> int:
    """Show what a model is made of: inputs, operators, types, weights, files, modules, cost.

    No weight is read, so that a model of any size takes a moment.
    """
    with model_given(model) as file:
        if precisions:
            return _precisions(file)
        return _inspect(file, str(model), _sizes(at or ()), depth, json)


def _inspect(file: Path, shown: str, sizes: dict[str, int], depth: int, json: bool) -> int:
    from vlmpass.ir_tools.inspecting import inspect_model
    from vlmpass.ir_tools.load import load
    from vlmpass.report import to_data
    from vlmpass.screens.inspection import inspection_screen

    opened = load(file)
    found = inspect_model(opened, shaped=shaped(opened, "inline-functions,infer"))
    _check_names(sizes, found)
    nbytes = file.stat().st_size
    if json:
        data = to_data(found)
        assert isinstance(data, dict)
        data["macs"] = {"text": found.macs.text, "at": found.macs.at(sizes), **data["macs"]}
        show_json({"path": shown, "nbytes": nbytes, "sizes": sizes, **data})
    else:
        show(inspection_screen(found, shown, nbytes=nbytes, depth=depth, sizes=sizes))
    return DONE


def _precisions(file: Path) -> int:
    from vlmpass.ir_tools.inspecting import precisions_of
    from vlmpass.ir_tools.load import load
    from vlmpass.report import to_data

    data = to_data(precisions_of(load(file)))
    assert isinstance(data, dict)
    show_json(data)
    return DONE


def _sizes(texts: list[str] | tuple[()]) -> dict[str, int]:
    from vlmpass.ir_tools.errors import PipelineError

    sizes: dict[str, int] = {}
    for text in texts:
        name, _, number = text.partition("=")
        if not name or not number.isdigit():
            raise PipelineError(f"--at takes NAME=SIZE, not '{text}'", remedy="write --at batch=1")
        sizes[name] = int(number)
    return sizes


def _check_names(sizes: dict[str, int], found: Inspection) -> None:
    """Refuse a size of what the model has not."""
    import onnx_ir as ir

    from vlmpass.ir_tools.errors import PipelineError
    from vlmpass.ir_tools.inspecting.macs import free_symbols
    from vlmpass.ir_tools.system.listed import listed

    inside = (free_symbols(ir.SymbolicDim(each)) for term in found.macs.terms for each in term)
    known = dict.fromkeys((*found.dynamic, *sorted(frozenset().union(*inside))))
    for name in sizes:
        if name not in known:
            raise PipelineError(
                f"the model has no dynamic dimension '{name}'",
                remedy=f"it has {listed(known)}" if known else "leave --at out",
            )
