"""`vlmpass check`: is this a valid model?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vlmpass.cli.console import show, show_json
from vlmpass.cli.piped import model_given, path_given
from vlmpass.cli.verb import DONE, FINDINGS, verb

__all__ = ["check"]


@verb
def check(
    model: Annotated[
        Path,
        typer.Argument(
            metavar="MODEL",
            help="- reads standard input.",
            parser=path_given,
            show_default=False,
        ),
    ],
    json: Annotated[bool, typer.Option("--json", help="Print the verdict as JSON.")] = False,
) -> int:
    """Check structure, types and shapes with ONNX's full check, whatever the model's size.

    Every reference to a data file is held against the file; no weight is read. Exit code 1 if the
    model is not valid.
    """
    with model_given(model) as file:
        return _check(file, str(model), json)


def _check(file: Path, shown: str, json: bool) -> int:
    from rich.console import Group
    from rich.text import Text

    from vlmpass.ir_tools.check import check as run_check
    from vlmpass.ir_tools.errors import CheckError
    from vlmpass.ir_tools.load import load
    from vlmpass.screens.text import unbroken

    opened = load(file)
    finding = None
    try:
        run_check(opened)
    except CheckError as error:
        from vlmpass.rewriter_rules.opset.restamp import remedy

        error.remedy = remedy(opened) or error.remedy
        finding = str(error)
    if json:
        show_json({"path": shown, "ok": finding is None, "finding": finding})
    elif finding is None:
        show(Group(unbroken(f"{shown}: ", ("valid", "green"))))
    else:
        show(Group(unbroken(f"{shown}: ", ("not valid", "red")), Text(finding)))
    return DONE if finding is None else FINDINGS
