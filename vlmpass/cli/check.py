"""`vlmpass check`: is this a valid model?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vlmpass.cli.console import show, show_json
from vlmpass.cli.piped import model_given, path_given
from vlmpass.cli.verb import DONE, FINDINGS, verb

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx_ir as ir

    from vlmpass.ir_tools.targets import Profile

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
    target: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Say whether this target takes it as it stands; see vlmpass targets.",
            show_default=False,
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the verdict as JSON.")] = False,
) -> int:
    """Check structure, types and shapes with ONNX's full check, whatever the model's size.

    Every reference to a data file is held against the file; no weight is read. Exit code 1 if the
    model is not valid, or the target does not take it.
    """
    from vlmpass.options import profile_of

    wanted = None if target is None else profile_of(target)
    with model_given(model) as file:
        return _check(file, str(model), wanted, json)


def _check(file: Path, shown: str, target: Profile | None, json: bool) -> int:
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
    suits = None if target is None or finding else _suits(opened, target)
    if json:
        ok = finding is None and (suits is None or suits["ok"])
        asked = {} if target is None else {"target": suits}
        show_json({"path": shown, "ok": ok, "finding": finding, **asked})
    elif finding is None:
        show(Group(unbroken(f"{shown}: ", ("valid", "green"))))
    else:
        show(Group(unbroken(f"{shown}: ", ("not valid", "red")), Text(finding)))
    if suits is not None and not json:
        _show_target(suits)
    return DONE if finding is None and (suits is None or suits["ok"]) else FINDINGS


def _suits(model: ir.Model, target: Profile) -> dict[str, object]:
    """Return whether a target takes a valid model, why not, and what helps."""
    from vlmpass.ir_tools.run.allowance import Allowance, default_memory
    from vlmpass.loadable import why_not

    reason, remedy = why_not(model, target, Allowance(default_memory(), None)) or (None, None)
    tried = target.runtime is not None
    told = {"finding": reason, "remedy": remedy, "loaded": reason is None and tried}
    return {"name": target.name, "ok": reason is None, **told}


def _show_target(suits: Mapping[str, object]) -> None:
    from rich.console import Group
    from rich.text import Text

    from vlmpass.screens.text import unbroken

    if suits["ok"]:
        how = "loads it" if suits["loaded"] else "reads its versions; nothing here loads for it"
        show(unbroken(f"{suits['name']}: ", (how, "green")))
    else:
        said = Text(f"{suits['finding']}; {suits['remedy']}")
        show(Group(unbroken(f"{suits['name']}: ", ("does not take it", "red")), said))
