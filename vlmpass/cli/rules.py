"""`vlmpass rules`: what equals what, and why a rule does not apply."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vlmpass.cli.completing import among, rule_words
from vlmpass.cli.console import show, show_json
from vlmpass.cli.piped import model_given, path_given
from vlmpass.cli.shaped import shaped
from vlmpass.cli.verb import DONE, verb

if TYPE_CHECKING:
    import onnx_ir as ir

    from vlmpass.ir_tools.rewrite import Attempt, Rule

__all__ = ["rules"]

_SHOWN = 20


@verb
def rules(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME | explain NAME MODEL",
            help="The rule to show; or explain, the rule and the model. All rules by default.",
            show_default=False,
            autocompletion=among(rule_words),
        ),
    ] = None,
    near: Annotated[
        str | None,
        typer.Option(
            metavar="NODE",
            help="With explain: only where a node or value of this name is reached.",
            show_default=False,
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print them as JSON.")] = False,
) -> int:
    """List the rewrite rules, show one, or explain why one does not apply to a model.

    'vlmpass rules explain NAME MODEL' infers shapes, tries the rule wherever its root's operator
    stands, and says how far it got and what failed; nothing is changed.
    """
    given = words or []
    explained = _judged(given, near)
    if explained:
        with model_given(path_given(given[2])) as file:
            return _explain(given[1], file, given[2], near, json)
    from vlmpass.ir_tools.rewrite import all_rules, rule_named

    if given:
        _show_one(rule_named(given[0]), json)
    else:
        _show_all(all_rules(), json)
    return DONE


def _judged(given: list[str], near: str | None) -> bool:
    """Refuse what can be told to be wrong at once; say whether a rule is to be explained."""
    from vlmpass.ir_tools.errors import PipelineError
    from vlmpass.ir_tools.system.listed import listed
    from vlmpass.ir_tools.system.rule_names import refuse_unwritten

    if given[:1] == ["explain"]:
        if len(given) != 3:
            raise PipelineError("explain takes a rule and a model: rules explain NAME MODEL")
        refuse_unwritten(given[1])
        return True
    if len(given) > 1:
        raise PipelineError(f"one rule at a time, not {listed(given)}")
    if near is not None:
        raise PipelineError("--near goes with explain: rules explain NAME MODEL --near NODE")
    if given:
        refuse_unwritten(given[0])
    return False


def _data(rule: Rule) -> dict[str, object]:
    return {
        "name": rule.name,
        "formula": rule.formula,
        "needs": list(rule.needs),
        "file": rule.file,
        "line": rule.line,
    }


def _place(rule: Rule) -> str:
    """Return file and line, the file from the package's folder on."""
    parts = Path(rule.file).parts
    start = next((i for i, part in enumerate(parts) if part == "rewriter_rules"), len(parts) - 1)
    return f"{'/'.join(parts[start:])}:{rule.line}"


def _show_all(found: list[Rule], json: bool) -> None:
    from rich.console import Group
    from rich.padding import Padding
    from rich.text import Text

    if json:
        show_json([_data(rule) for rule in found])
        return
    entries: list[Text | Padding] = []
    for rule in found:
        small = "; ".join([*rule.needs, _place(rule)])
        lines = Text.assemble(rule.formula, "\n", (small, "dim"))
        entries += [Text(rule.name, style="bold"), Padding(lines, (0, 0, 0, 2))]
    show(Group(*entries))


def _show_one(rule: Rule, json: bool) -> None:
    from rich.console import Group
    from rich.text import Text

    if json:
        show_json({**_data(rule), "doc": rule.doc})
        return
    lines = [Text(rule.name, style="bold"), Text(rule.doc), Text()]
    lines.append(Text(f"needs   {', '.join(rule.needs) or 'nothing'}"))
    lines.append(Text(f"source  {_place(rule)}"))
    show(Group(*lines))


def _explain(name: str, file: Path, shown: str, near: str | None, json: bool) -> int:
    from vlmpass.ir_tools.load import load
    from vlmpass.ir_tools.rewrite import explain, rule_named
    from vlmpass.report import to_data

    rule = rule_named(name)
    model = load(file)
    if near is not None:
        _refuse_unknown(near, model)
    attempts = explain(rule, shaped(model, "infer"), near)
    if json:
        show_json({"rule": rule.name, "model": shown, "attempts": to_data(attempts)})
    else:
        _show_attempts(rule, shown, attempts)
    return DONE


def _refuse_unknown(near: str, model: ir.Model) -> None:
    """Refuse a name that no node and no value has."""
    from vlmpass.ir_tools.graph.walk import all_nodes, all_values
    from vlmpass.options import nearest

    names = dict.fromkeys(node.name for node in all_nodes(model) if node.name)
    names |= dict.fromkeys(value.name for value in all_values(model) if value.name)
    if near not in names:
        raise nearest(near, names, "node or value")


def _show_attempts(rule: Rule, path: str, attempts: list[Attempt]) -> None:
    from rich.console import Group
    from rich.text import Text

    applying = sum(attempt.applies for attempt in attempts)
    lines = [Text(rule.formula, style="bold")]
    lines.append(Text(f"{path}: tried at {len(attempts)} nodes, applies at {applying}"))
    for attempt in attempts[:_SHOWN]:
        lines.append(Text(f"  {attempt}", style="green" if attempt.applies else ""))
    if len(attempts) > _SHOWN:
        lines.append(Text(f"  and {len(attempts) - _SHOWN} more; --near narrows it", style="dim"))
    show(Group(*lines))
