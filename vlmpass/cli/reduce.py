"""`vlmpass reduce`: the smallest model that still fails."""

from __future__ import annotations

from typing import Annotated

import typer

from vlmpass.cli.arguments import CheckTime, Output, ReportJson, Source
from vlmpass.cli.console import show, show_json
from vlmpass.cli.piped import model_given, no_pipe
from vlmpass.cli.verb import DONE, verb

__all__ = ["reduce"]


@verb
def reduce(
    source: Source,
    output: Output,
    *,
    check: Annotated[
        str,
        typer.Option(
            metavar="COMMAND",
            help="{} is where the model goes; it fails by an exit code other than 0.",
            show_default=False,
        ),
    ],
    says: Annotated[
        str,
        typer.Option(
            metavar="TEXT",
            help="What its output must have in it, too, so that no other fault counts.",
            show_default=False,
        ),
    ] = "",
    check_time: CheckTime = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace an output that is not a model.")
    ] = False,
    json: ReportJson = False,
) -> int:
    """Write the smallest part of a model on which a command still fails as it does on IN.

    Nodes, outputs, sizes of dimensions and weights go for as long as it fails, and what is left is
    a valid model if IN is one.
    """
    no_pipe(output, "OUT")
    with model_given(source) as file:
        from vlmpass.reducing import reduce as run_reduce
        from vlmpass.report import to_data
        from vlmpass.screens.findings import reduce_screen

        found = run_reduce(file, output, check=check, says=says, check_time=check_time, force=force)
    if json:
        show_json(to_data(found))
    else:
        show(reduce_screen(found))
    return DONE
