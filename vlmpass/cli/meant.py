"""A model as PyTorch meant it, for verbs that run it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vlmpass.cli.console import say

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["as_meant"]


def as_meant(path: Path) -> Path | ir.Model:
    """Return a model in which what PyTorch's own numbers stand for is said in ONNX's; say so.

    Args:
        path: Its file, which is returned where there is nothing of the kind.

    Raises:
        ModelError: It cannot be opened.
    """
    from vlmpass.ir_tools.graph.walk import all_nodes
    from vlmpass.ir_tools.load import load
    from vlmpass.rewriter_rules.substitute.misspelled import is_misspelled, respell

    model = load(path)
    wrong = [node for node in all_nodes(model) if is_misspelled(node)]
    if not wrong:
        return path
    for node in wrong:
        respell(node)
    say(
        f"vlmpass: note: {path.name} has PyTorch's numbers for types and axes in {len(wrong)}"
        " nodes, which no runtime takes; they are read as PyTorch means them, as convert does"
    )
    return model
