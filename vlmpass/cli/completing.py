"""What shells complete: the words of options, and names of passes, rules, targets and operators."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence

import typer

__all__ = ["among", "asked", "operator_names", "pass_names", "pipelines", "rule_words"]

_VARIABLE = "_VLMPASS_COMPLETE"
"""What a shell asks with, by the script that `--show-completion` prints."""


def among(words: Callable[[], Iterable[str]]) -> Callable[[str], list[str]]:
    """Return what completes one of some words.

    Args:
        words: Returns them; it is called when a shell asks.
    """

    def complete(incomplete: str) -> list[str]:
        return [each for each in words() if each.startswith(incomplete)]

    return complete


def pass_names() -> Sequence[str]:
    """Return the names of all passes."""
    from vlmpass.passes.pipeline.registry import PASSES

    return list(PASSES)


def pipelines(begun: str) -> list[str]:
    """Return how the text of a pipeline goes on: by names of passes, inside braces by options."""
    head, inside, options = begun.rpartition("{")
    if not inside or "}" in options:
        before, comma, name = begun.rpartition(",")
        return [before + comma + each for each in pass_names() if each.startswith(name)]
    from vlmpass.ir_tools.errors import PipelineError
    from vlmpass.passes.pipeline.options import options_of
    from vlmpass.passes.pipeline.registry import PASSES

    try:
        known = options_of(PASSES[head.rpartition(",")[2]])
    except (KeyError, PipelineError):  # the command says so, once it runs
        return []
    given, space, word = options.rpartition(" ")
    there = {each.partition("=")[0] for each in given.split()}
    left = [f"{each.name}=" for each in known if each.name not in there and not each.free]
    return [f"{head}{{{given}{space}{each}" for each in left if each.startswith(word)]


def rule_words() -> Sequence[str]:
    """Return what `vlmpass rules` takes first."""
    from vlmpass.ir_tools.system.rule_names import written_rules

    return ["explain", *(written_rules() or ())]


def operator_names() -> Sequence[str]:
    """Return the operators of the standard."""
    from vlmpass.ir_tools.operators.schema import operators

    return sorted(operators())


def asked(app: typer.Typer) -> int | None:
    """Answer a shell that asks for words, and return the exit code; None where none asks."""
    instruction = os.environ.get(_VARIABLE)
    if not instruction:
        return None
    from typer.completion import shell_complete

    return shell_complete(typer.main.get_command(app), {}, "vlmpass", _VARIABLE, instruction)
