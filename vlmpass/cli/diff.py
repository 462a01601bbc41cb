"""`vlmpass diff`: what two models do not have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vlmpass.cli.console import show, show_json
from vlmpass.cli.piped import models_given, path_given
from vlmpass.cli.verb import DONE, FINDINGS, verb

__all__ = ["diff"]

_Model = Annotated[
    Path, typer.Argument(help="- reads standard input.", parser=path_given, show_default=False)
]


@verb
def diff(
    a: _Model,
    b: _Model,
    json: Annotated[bool, typer.Option("--json", help="Print the difference as JSON.")] = False,
) -> int:
    """Compare what two models are made of: nodes, edges, attributes, types, shapes, weights.

    Nodes are alike where all that leads to them is, whatever they are called; weights by their
    content, which is read in chunks. Exit code 1 if there is a difference.
    """
    with models_given(a, b) as (one, two):
        from vlmpass.ir_tools.inspecting.difference import difference
        from vlmpass.ir_tools.load import load
        from vlmpass.report import to_data
        from vlmpass.screens.findings import diff_screen

        found = difference(load(one), load(two))
    if json:
        data = to_data(found)
        assert isinstance(data, dict)
        show_json({"a": str(a), "b": str(b), "ok": found.ok, **data})
    else:
        show(diff_screen(found))
    return DONE if found.ok else FINDINGS
