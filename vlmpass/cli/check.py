"""`vlmpass check`: is this a valid model?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from vlmpass.cli.completing import among
from vlmpass.cli.console import show, show_json
from vlmpass.cli.piped import model_given, path_given
from vlmpass.cli.verb import DONE, FINDINGS, verb
from vlmpass.options import target_names

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vlmpass.ir_tools.targets import Profile
    from vlmpass.ir_tools.targets.lint import Remark
    from vlmpass.suits import Suits

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
            metavar="NAME,...",
            help="Say whether these targets take it as it stands; see vlmpass targets.",
            autocompletion=among(target_names),
            show_default=False,
        ),
    ] = None,
    lint: Annotated[
        bool,
        typer.Option("--lint", help="Say what is odd about it, as --target does, too."),
    ] = False,
    sarif: Annotated[bool, typer.Option("--sarif", help="Print the findings as SARIF.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the verdict as JSON.")] = False,
) -> int:
    """Check structure, types and shapes with ONNX's full check, whatever the model's size.

    Every reference to a data file is held against the file; no weight is read. Exit code 1 if the
    model is not valid, or the target does not take it.
    """
    from vlmpass.options import profile_of

    names = [] if target is None else [each.strip() for each in target.split(",")]
    wanted = [profile_of(each) for each in dict.fromkeys(names)]
    with model_given(model) as file:
        found = _checked(file, str(model), wanted, lint=lint or bool(wanted))
    if sarif:
        from vlmpass.sarif import sarif as log

        show_json(log(found.path, found.finding, found.suits or (), found.remarks))
    elif json:
        show_json(_data(found, wanted, lint=lint))
    else:
        _show(found)
    return DONE if found.ok else FINDINGS


_BRIEF = ("name", "ok", "finding", "remedy", "loaded")
"""What is told of one target that is asked for alone, beside the list with all of it."""


class _Checked(NamedTuple):
    """What was found: of the model itself, of each target, and what is odd."""

    path: str
    finding: str | None
    suits: tuple[Suits, ...] | None
    remarks: tuple[Remark, ...]

    @property
    def ok(self) -> bool:
        return self.finding is None and all(each.ok for each in self.suits or ())


def _checked(file: Path, shown: str, wanted: Sequence[Profile], *, lint: bool) -> _Checked:
    from vlmpass.ir_tools.check import check as run_check
    from vlmpass.ir_tools.errors import CheckError
    from vlmpass.ir_tools.load import load
    from vlmpass.ir_tools.shapes.declared import check_declared

    opened = load(file)
    try:
        run_check(opened)
        check_declared(opened)
    except CheckError as error:
        from vlmpass.rewriter_rules.opset.restamp import remedy

        error.remedy = remedy(opened) or error.remedy
        return _Checked(shown, str(error), None, ())
    if not lint:
        return _Checked(shown, None, (), ())
    from vlmpass.fitting import files_of
    from vlmpass.ir_tools.run.allowance import Allowance, default_memory
    from vlmpass.ir_tools.targets.lint import lint as odd
    from vlmpass.ir_tools.targets.lint_files import lint_files
    from vlmpass.suits import suits

    found = suits(opened, wanted, Allowance(default_memory(), None), files_of(opened, file))
    return _Checked(shown, None, found, (*odd(opened), *lint_files(opened)))


def _data(found: _Checked, wanted: Sequence[Profile], *, lint: bool) -> dict[str, object]:
    data: dict[str, object] = {"path": found.path, "ok": found.ok, "finding": found.finding}
    if wanted:
        told = None if found.suits is None else [each.data for each in found.suits]
        data["targets"] = told
        if len(wanted) == 1:
            data["target"] = None if told is None else {key: told[0][key] for key in _BRIEF}
    if wanted or lint:
        data["remarks"] = [each._asdict() for each in found.remarks]
    return data


def _show(found: _Checked) -> None:
    from rich.console import Group
    from rich.text import Text

    from vlmpass.screens.targeting import remarks_screen, targets_screen
    from vlmpass.screens.text import unbroken

    if found.finding is not None:
        head = unbroken(f"{found.path}: ", ("not valid", "red"))
        show(Group(head, Text(found.finding)))
        return
    show(Group(unbroken(f"{found.path}: ", ("valid", "green"))))
    if found.suits:
        show(targets_screen(found.suits))
    if found.remarks:
        show(remarks_screen(found.remarks))
