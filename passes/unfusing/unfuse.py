"""The pass unfuse: fused operators said in standard or in primitive ones."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import onnx_ir as ir

from vlmpass.ir_tools.graph.walk import all_nodes
from vlmpass.ir_tools.rewrite import apply_rules, explain
from vlmpass.passes.pipeline.base import Done, Pass
from vlmpass.passes.pipeline.needs import Need
from vlmpass.passes.unfusing.in_floats import InFloats, rules_of_operators, telling
from vlmpass.rewriter_rules.fuse.spellings import ORT
from vlmpass.rewriter_rules.opset import raise_ir_version
from vlmpass.rewriter_rules.unfuse import CONTRIB, UNFUSE, why_it_stays

__all__ = ["Unfuse"]

_LOG = logging.getLogger(__name__)


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
        return InFloats()

    def run(self, model: ir.Model) -> Done:
        """Apply the rules to the main graph, its subgraphs and the functions."""
        with telling(model):
            done = Done.of(apply_rules(model, UNFUSE if self.to == "primitive" else CONTRIB))
        if done:
            raise_ir_version(model)
        for line in _left(model):
            _LOG.warning("%s", line)
        return done


def _left(model: ir.Model) -> Iterator[str]:
    """Yield what stays of ONNX Runtime's own operators, a line for each operator and reason."""
    rules = rules_of_operators()
    for operator in sorted({node.op_type for node in all_nodes(model) if node.domain == ORT}):
        rule = rules.get(operator)
        tried = () if rule is None else explain(rule, model)
        reasons = Counter(each.reason for each in tried) or {why_it_stays(operator): 0}
        for reason, count in reasons.items():
            yield f"unfuse: {operator} stays{f' at {count} nodes' if count > 1 else ''}: {reason}"
