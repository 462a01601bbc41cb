"""Products of ONNX Runtime's own that may round their input, and what is compared without them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from vlmpass.ir_tools.graph.walk import all_nodes
from vlmpass.ir_tools.rewrite import Rule, where_it_applies
from vlmpass.passes.infer import Infer
from vlmpass.passes.pipeline.base import Pass
from vlmpass.rewriter_rules.fuse.spellings import ORT
from vlmpass.rewriter_rules.unfuse import CONTRIB

__all__ = ["InFloats", "rules_of_operators", "telling"]

_LOG = logging.getLogger(__name__)
_LEVEL = "accuracy_level"
"""What a product says of how far its input may be rounded."""
_IN_FLOATS = 1


@dataclass(frozen=True)
class InFloats(Pass):
    """Let products whose input may be rounded compute in floats, where they are to be unfused."""

    name: ClassVar[str] = "in-floats"

    def run(self, model: ir.Model) -> bool:
        """Take their accuracy_level away in place; shapes are inferred only where there are any."""
        found, rules = _rounding(model), rules_of_operators()
        if not found:
            return False
        Infer().run(model)
        named = [rules[operator] for operator in sorted({node.op_type for node in found})]
        going = {node for rule in named for node in where_it_applies(rule, model)}
        going &= {*self.chosen(model, found)}
        for node in going:
            del node.attributes[_LEVEL]
        return bool(going)

    def chosen(self, model: ir.Model, found: list[ir.Node]) -> list[ir.Node]:
        """Return those of them that a pass says in others if it can.

        Args:
            model: Their model.
            found: Products whose input may be rounded.
        """
        del model
        return found


def _rounding(model: ir.Model) -> list[ir.Node]:
    known = rules_of_operators()
    return [
        node
        for node in all_nodes(model)
        if node.domain == ORT
        and (level := node.attributes.get(_LEVEL)) is not None
        and not level.is_ref()
        and level.as_int() > _IN_FLOATS
        and node.op_type in known
    ]


def rules_of_operators() -> dict[str, Rule]:
    """Return the rule that says each of ONNX Runtime's own operators in others."""
    return {name: each for each in CONTRIB for root in each.plan.root_ops for _, name in root.ops}


@contextmanager
def telling(model: ir.Model) -> Iterator[None]:
    """Say afterwards of how many products the input was rounded, and is not any more.

    Args:
        model: What is changed meanwhile.
    """
    before = len(_rounding(model))
    yield
    if gone := before - len(_rounding(model)):
        _LOG.warning(
            "%d products rounded their input, as their accuracy_level says, and compute in floats "
            "now; the result is compared with the source computing so",
            gone,
        )
