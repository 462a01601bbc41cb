"""`vlmpass reduce`: the smallest model that still fails."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vlmpass.cli.console import show, show_json
from vlmpass.cli.piped import model_given, no_pipe, path_given
from vlmpass.cli.verb import DONE, verb

__all__ = ["reduce"]


@verb
def reduce(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="IN",
            help="The model; - reads standard input.",
            parser=path_given,
            show_default=False,
        ),
    ],
    output: Annotated[
        Path,
        typer.Argument(
            metavar="OUT", help="Where the result goes.", parser=path_given, show_default=False
        ),
    ],
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
    force: Annotated[
        bool, typer.Option("--force", help="Replace an output that is not a model.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
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

        found = run_reduce(file, output, check=check, says=says, force=force)
    if json:
        show_json(to_data(found))
    else:
        show(reduce_screen(found))
    return DONE
