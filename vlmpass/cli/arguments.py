"""Arguments that several verbs take, written once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from vlmpass.cli.piped import path_given

__all__ = ["CheckTime", "Inputs", "Output", "ReportJson", "Seed", "Source"]

Source: TypeAlias = Annotated[
    Path,
    typer.Argument(
        metavar="IN",
        help="The model; - reads standard input.",
        parser=path_given,
        show_default=False,
    ),
]
Output: TypeAlias = Annotated[
    Path,
    typer.Argument(
        metavar="OUT", help="Where the result goes.", parser=path_given, show_default=False
    ),
]
Inputs: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.npz",
        help="Your own inputs instead of generated ones.",
        parser=path_given,
        show_default=False,
    ),
]
Seed: TypeAlias = Annotated[int, typer.Option(metavar="N", min=0, help="Of the generated inputs.")]
ReportJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Print the report as JSON.")]
CheckTime: TypeAlias = Annotated[
    float | None,
    typer.Option(
        metavar="SECONDS",
        min=0.0,
        help="How long the command may take, by default 600; one that takes longer is ended, and"
        " fails.",
        show_default=False,
    ),
]
