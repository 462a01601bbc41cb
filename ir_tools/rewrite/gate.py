"""The one gate that every single rewrite passes: where a limit or a bisection takes hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeAlias

import onnx_ir as ir

__all__ = ["Gate", "admitted", "gated"]

Gate: TypeAlias = Callable[[str, ir.Node], bool]

_gate: ContextVar[Gate | None] = ContextVar("vlmpass_rewrite_gate", default=None)


@contextmanager
def gated(gate: Gate) -> Iterator[None]:
    """Ask a function before each rewrite made within this context.

    Args:
        gate: Gets the rule's name and the node it is about to replace; False forbids it. Only
            rewrites that would otherwise be made are asked about, each once per attempt.
    """
    token = _gate.set(gate)
    try:
        yield
    finally:
        _gate.reset(token)


def admitted(rule: str, node: ir.Node) -> bool:
    """Return whether the gate in force, if any, lets a rewrite happen."""
    gate = _gate.get()
    return gate is None or gate(rule, node)
