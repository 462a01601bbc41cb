"""`vlmpass extract`, `split` and `compose`: parts of models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vlmpass.cli.arguments import Output, ReportJson, Source
from vlmpass.cli.console import show, show_json, status
from vlmpass.cli.given import takes_options
from vlmpass.cli.piped import model_given, no_pipe, path_given
from vlmpass.cli.verb import DONE, verb
from vlmpass.convert_options import Writing
from vlmpass.ir_tools.errors import PipelineError

__all__ = ["compose", "extract", "split"]


def names_given(text: str | None, option: str) -> tuple[str, ...]:
    """Return names that are written with commas between them.

    Raises:
        PipelineError: One is empty.
    """
    names = tuple(each.strip() for each in text.split(",")) if text is not None else ()
    if not all(names):
        raise PipelineError(f"{option} has an empty name", remedy=f"write {option} a,b")
    return names


@verb
@takes_options(Writing)
def extract(
    source: Source,
    output: Output,
    inputs: Annotated[
        str | None,
        typer.Option(
            metavar="A,B",
            help="Values that are given instead of computed; by default what the outputs need of"
            " the model's inputs.",
            show_default=False,
        ),
    ] = None,
    outputs: Annotated[
        str | None,
        typer.Option(
            metavar="C",
            help="Values that are wanted; by default the model's outputs that depend on --inputs.",
            show_default=False,
        ),
    ] = None,
    scope: Annotated[
        str | None,
        typer.Option(
            metavar="MODULE",
            help="Instead of values, a module such as vpm; vlmpass inspect lists them.",
            show_default=False,
        ),
    ] = None,
    json: ReportJson = False,
    **given: object,
) -> int:
    """Write a part of a model as a model: what lies between some values, or a module.

    It has the weights and functions that it needs, and its inputs and outputs have types and
    shapes. IN stays as it is.
    """
    no_pipe(output, "OUT")
    with model_given(source) as file:
        starts, ends = names_given(inputs, "--inputs"), names_given(outputs, "--outputs")
        Writing(**given)  # type: ignore[arg-type]
        from vlmpass import parts
        from vlmpass.report import to_data
        from vlmpass.screens.parting import part_screen

        with status() as shown:
            found = parts.extract(
                file,
                output,
                inputs=starts,
                outputs=ends,
                scope=scope,
                progress=shown.bytes,
                **given,  # type: ignore[arg-type]
            )
    if json:
        show_json(to_data(found))
    else:
        show(part_screen(found))
    return DONE


@verb
@takes_options(Writing)
def split(
    source: Source,
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="DIR",
            help="Where the parts go; made where it does not exist.",
            parser=path_given,
            show_default=False,
        ),
    ],
    scopes: Annotated[
        str | None,
        typer.Option(
            metavar="A,B",
            help="A part for each module, such as vpm,resampler,llm; the rest goes where it is"
            " first needed.",
            show_default=False,
        ),
    ] = None,
    layers: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Parts of N layers: outermost modules that are numbered.",
            show_default=False,
        ),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="Parts in the order of the graph, each with at most so many bytes of weights,"
            " as 1GB.",
            show_default=False,
        ),
    ] = None,
    share: Annotated[
        bool,
        typer.Option("--share", help="Write every weight once, in a store that all refer to."),
    ] = False,
    json: ReportJson = False,
    **given: object,
) -> int:
    """Cut a model up into parts that run one after the other; compose joins them again.

    Every part has its own weights only, and typed inputs and outputs; manifest.json says what goes
    where, and vlmpass.run_parts runs them. IN stays as it is.
    """
    no_pipe(folder, "DIR")
    with model_given(source) as file:
        named = names_given(scopes, "--scopes")
        Writing(**given)  # type: ignore[arg-type]
        from vlmpass import parts
        from vlmpass.report import to_data
        from vlmpass.screens.parting import split_screen

        with status() as shown:
            found = parts.split(
                file,
                folder,
                scopes=named,
                layers=layers,
                budget=budget,
                share=share,
                progress=shown.bytes,
                **given,  # type: ignore[arg-type]
            )
    if json:
        show_json(to_data(found))
    else:
        show(split_screen(found))
    return DONE


@verb
@takes_options(Writing)
def compose(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="DIR",
            help="What split made, or the manifest in it.",
            parser=path_given,
            show_default=False,
        ),
    ],
    output: Output,
    json: ReportJson = False,
    **given: object,
) -> int:
    """Join the parts of a model again, whatever its size.

    Names are as they were; parts may have been converted since, as long as they fit each other.
    """
    no_pipe(folder, "DIR")
    no_pipe(output, "OUT")
    from vlmpass import parts
    from vlmpass.report import to_data
    from vlmpass.screens.parting import part_screen

    with status() as shown:
        found = parts.compose(folder, output, progress=shown.bytes, **given)  # type: ignore[arg-type]
    if json:
        show_json(to_data(found))
    else:
        show(part_screen(found))
    return DONE
