"""What shells complete: the words of options, and names of passes, rules, targets and operators."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence

import typer

__all__ = ["among", "asked", "operator_names", "pass_names", "rule_words"]

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
