"""`vlmpass bisect`: which change makes a model wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vlmpass.cli.arguments import CheckTime, Inputs, Seed, Source
from vlmpass.cli.completing import pipelines
from vlmpass.cli.console import show, show_json
from vlmpass.cli.piped import PIPED, model_given, no_pipe, path_given
from vlmpass.cli.verb import DONE, FINDINGS, verb

__all__ = ["bisect"]


@verb
def bisect(
    source: Source,
    folder: Annotated[
        Path | None,
        typer.Argument(
            metavar="DIR",
            help="Where the reproducer goes; by default it is not written.",
            parser=path_given,
            show_default=False,
        ),
    ] = None,
    *,
    passes: Annotated[
        str,
        typer.Option(
            metavar="TEXT",
            help="The pipeline, as for convert.",
            show_default=False,
            autocompletion=pipelines,
        ),
    ],
    tolerance: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            min=0.0,
            help="Largest relative error allowed, as for verify.",
            show_default=False,
        ),
    ] = None,
    inputs: Inputs = None,
    seed: Seed = 0,
    check: Annotated[
        str | None,
        typer.Option(
            metavar="COMMAND",
            help="Instead of comparing numbers, run this, {} being the model: what it fails on is"
            " wrong.",
            show_default=False,
        ),
    ] = None,
    check_time: CheckTime = None,
    force: Annotated[
        bool,
        typer.Option("--force", help="Replace the reproducer and the inputs that are in DIR."),
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print what was found as JSON.")] = False,
) -> int:
    """Find the first change of a pipeline after which the model computes something else.

    First the pass, then the single application of a rule: the nodes before and after it, the
    command that makes all changes up to it, and in DIR the smallest model over which the pass alone
    fails, with its inputs. Exit code 1 if there is one.
    """
    no_pipe(folder, "DIR")
    no_pipe(inputs, "--inputs")
    with model_given(source) as file:
        from vlmpass.bisecting import bisect as run_bisect
        from vlmpass.report import to_data
        from vlmpass.screens.findings import bisect_screen

        found = run_bisect(
            file,
            passes,
            folder=folder,
            tolerance=tolerance,
            inputs=inputs,
            seed=seed,
            check=check,
            check_time=check_time,
            force=force,
            name=str(PIPED) if source == PIPED else None,
        )
    if json:
        show_json(to_data(found))
    else:
        show(bisect_screen(found))
    return FINDINGS if found.found else DONE
