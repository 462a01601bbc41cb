"""`vlmpass opset`: an operator through the opsets, and what each step comes to."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from vlmpass.cli.completing import among, operator_names
from vlmpass.cli.console import show, show_json
from vlmpass.cli.verb import DONE, verb

if TYPE_CHECKING:
    from vlmpass.rewriter_rules.opset import StepSummary, Version

__all__ = ["opset"]


@verb
def opset(
    operator: Annotated[
        str,
        typer.Argument(metavar="OP", help="Such as Resize.", autocompletion=among(operator_names)),
    ],
    json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> int:
    """Show an operator's versions, what changed, and how it is converted up and down.

    A step is same (only types change), exact (another form of the operator), expanded (spelled by
    other operators) or refused; an exact or expanded step may still refuse single nodes.
    """
    from vlmpass.ir_tools.operators import Kind, complete, named, traits_of
    from vlmpass.options import nearest

    if complete() and traits_of("", operator) is None:
        raise nearest(operator, sorted(named(*Kind)), "operator")
    from vlmpass.ir_tools.operators.schema import operators

    if operator not in operators():
        raise nearest(operator, operators(), "operator")
    from vlmpass.rewriter_rules.opset import tell

    versions = tell(operator)
    if json:
        told = [asdict(version) for version in versions]
        show_json({"operator": operator, "versions": told})
    else:
        _show(operator, versions)
    return DONE


def _step(told: StepSummary | None) -> str:
    if told is None:
        return ""
    what = {"same": "same", "refused": f"refused: {told.says}"}
    return what.get(told.kind, f"{told.kind}: {told.says}")


def _show(operator: str, versions: tuple[Version, ...]) -> None:
    from rich.console import Group
    from rich.text import Text

    from vlmpass.screens.text import grid

    table = grid("since", "changed", "up to it", "down from it")
    for version in versions:
        table.line(
            Text(str(version.since), style="bold"),
            "\n".join(version.changes),
            _step(version.up),
            _step(version.down),
        )
    show(Group(Text(operator, style="bold"), table))
