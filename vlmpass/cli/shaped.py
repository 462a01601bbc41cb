"""A model with the shapes that follow from its inputs, for verbs that look."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vlmpass.cli.console import say

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["shaped"]


def shaped(model: ir.Model, passes: str) -> ir.Model:
    """Return a copy with passes run over it; the model itself, and a note, where one refuses.

    Args:
        model: Stays as it is.
        passes: Pipeline text that ends in ``infer``.
    """
    from vlmpass.ir_tools.errors import VlmpassError
    from vlmpass.ir_tools.graph.clone import clone
    from vlmpass.passes import PassManager, parse

    copy = clone(model)
    try:
        PassManager(parse(passes)).run(copy, in_place=True)
    except VlmpassError as error:
        say(f"vlmpass: note: only declared shapes are known: {error.problem}")
        return model
    return copy
