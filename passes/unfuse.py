"""The pass unfuse: fused operators said in standard or in primitive ones."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import onnx_ir as ir

from vlmpass.ir_tools.graph.walk import all_nodes
from vlmpass.ir_tools.rewrite import Rule, apply_rules, explain, where_it_applies
from vlmpass.passes.infer import Infer
from vlmpass.passes.pipeline.base import Done, Pass
from vlmpass.passes.pipeline.needs import Need
from vlmpass.rewriter_rules.fuse.spellings import ORT
from vlmpass.rewriter_rules.opset import raise_ir_version
from vlmpass.rewriter_rules.unfuse import CONTRIB, UNFUSE, why_it_stays

__all__ = ["Unfuse"]

_LOG = logging.getLogger(__name__)
_LEVEL = "accuracy_level"
"""What a product of ONNX Runtime says of how far its input may be rounded."""
_IN_FLOATS = 1


@dataclass(frozen=True)
class Unfuse(Pass):
    """Say ONNX Runtime's own operators, or all fused ones, in operators that every target has.

    What is computed stays the same, caches and masks included; weights keep their bytes where the
    opset has a type for them. An operator that has no equal, or none that is proven for what it is
    given, stays, and the report says why. Products that may round their input to 8 bits compute in
    floats then, and are compared with what the source computes if they do so there.
    """

    name: ClassVar[str] = "unfuse"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.SHAPES})
    nothing: ClassVar[str] = "nothing was said in other operators"
    to: Literal["standard", "primitive"] = "standard"
    """What to say them in: standard operators where the opset has one for it and primitive ones
    where not, or primitive ones throughout, which takes standard normalisations, activations,
    attention and rotary embeddings apart as well."""

    def mending(self) -> Pass:
        """Return what lets the products that are said in others compute in floats."""
        return _InFloats()

    def run(self, model: ir.Model) -> Done:
        """Apply the rules to the main graph, its subgraphs and the functions."""
        before = len(_rounding(model))
        done = Done.of(apply_rules(model, UNFUSE if self.to == "primitive" else CONTRIB))
        if done:
            raise_ir_version(model)
        if gone := before - len(_rounding(model)):
            _LOG.warning(
                "%d products rounded their input, as their accuracy_level says, and compute in "
                "floats now; the result is compared with the source computing so",
                gone,
            )
        for line in _left(model):
            _LOG.warning("%s", line)
        return done


@dataclass(frozen=True)
class _InFloats(Pass):
    """Let products whose input may be rounded compute in floats, where they are to be unfused."""

    name: ClassVar[str] = "unfuse-in-floats"

    def run(self, model: ir.Model) -> bool:
        """Take their accuracy_level away in place; shapes are inferred only where there are any."""
        found, rules = _rounding(model), _rules()
        if not found:
            return False
        Infer().run(model)
        named = [rules[operator] for operator in sorted({node.op_type for node in found})]
        going = {node for rule in named for node in where_it_applies(rule, model)}
        for node in going.intersection(found):
            del node.attributes[_LEVEL]
        return not going.isdisjoint(found)


def _rounding(model: ir.Model) -> list[ir.Node]:
    """Return the products of ONNX Runtime's own that may round their input."""
    known = _rules()
    return [
        node
        for node in all_nodes(model)
        if node.domain == ORT
        and (level := node.attributes.get(_LEVEL)) is not None
        and not level.is_ref()
        and level.as_int() > _IN_FLOATS
        and node.op_type in known
    ]


def _rules() -> dict[str, Rule]:
    return {name: each for each in CONTRIB for root in each.plan.root_ops for _, name in root.ops}


def _left(model: ir.Model) -> Iterator[str]:
    """Yield what stays of ONNX Runtime's own operators, a line for each operator and reason."""
    rules = _rules()
    for operator in sorted({node.op_type for node in all_nodes(model) if node.domain == ORT}):
        rule = rules.get(operator)
        tried = () if rule is None else explain(rule, model)
        reasons = Counter(each.reason for each in tried) or {why_it_stays(operator): 0}
        for reason, count in reasons.items():
            yield f"unfuse: {operator} stays{f' at {count} nodes' if count > 1 else ''}: {reason}"
