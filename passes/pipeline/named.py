"""Pipeline text whose passes exist, known before any of them is imported."""

from __future__ import annotations

import difflib
from collections.abc import Container, Iterable

from vlmpass.ir_tools.system.arguments import wrong
from vlmpass.passes.pipeline.registry import PASSES
from vlmpass.passes.pipeline.syntax import PassText, point, read_pipeline

__all__ = ["nearest", "read_named"]


def read_named(text: str, registry: Iterable[str] = PASSES) -> list[PassText]:
    """Return the passes that a pipeline text names, as written.

    Args:
        text: Such as ``infer,convert-opset{to=18}``.
        registry: The names that there are.

    Raises:
        ArgumentError: It is no text.
        PipelineError: Wrong grammar, or an unknown pass; the message shows the place and, where
            there is one, the nearest right word.
    """
    if not isinstance(text, str):
        raise wrong("a pipeline", text, "a text")
    written = list(read_pipeline(text))
    known: Container[str] = frozenset(registry)
    for each in written:
        if each.name not in known:
            hint = nearest(each.name, registry) or "`vlmpass passes` lists them all"
            raise point(text, each.span, f"no pass named '{each.name}'; {hint}")
    return written


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return "did you mean …?" for a word close to a known one; case and underscores are free."""
    found = difflib.get_close_matches(word.lower().replace("_", "-"), list(known), 1, 0.6)
    return f"did you mean '{found[0]}'?" if found else None
