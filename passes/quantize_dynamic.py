"""The pass that lets products compute in integers, with inputs rounded while the model runs."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import onnx_ir as ir

from vlmpass.ir_tools.errors import Refusal, Refused
from vlmpass.ir_tools.graph.edit import remove_unused_constant
from vlmpass.ir_tools.graph.limit import may_apply
from vlmpass.ir_tools.graph.names import Names
from vlmpass.ir_tools.graph.tape import Tape, splice
from vlmpass.ir_tools.graph.walk import Scope, all_nodes
from vlmpass.passes.pipeline.base import OptionError, Pass
from vlmpass.rewriter_rules.quant.excluded import excludes, fault_of, unmatched
from vlmpass.rewriter_rules.quant.in_doubles import double_product
from vlmpass.rewriter_rules.quant.in_integers import Integers, why_not_integers
from vlmpass.rewriter_rules.quant.plain import Left, Multiplied, multiplied

__all__ = ["QuantizeDynamic"]

_LOG = logging.getLogger(__name__)
_OPSET = 11
"""The opset from which DynamicQuantizeLinear is there."""


@dataclass(frozen=True)
class QuantizeDynamic(Pass):
    """Compute MatMul and Gemm in integers of 8 bits, whose inputs are rounded as they come.

    Weights have one scale for each output; of inputs the range is found whenever the model runs.
    LayerNormalization, Softmax and products of activations, as in attention, stay float. A result
    is compared with the source whose inputs and weights are rounded likewise and then multiplied in
    doubles, and how far rounding takes its outputs is said.
    """

    name: ClassVar[str] = "quantize-dynamic"
    nothing: ClassVar[str] = "no product has a float weight to round"
    rounds: ClassVar[str] = "weights and what they multiply"

    weights: Literal["int8", "uint8"] = "int8"
    """The type of weights. With int8, processors without VNNI may add in 16 bits and lose what does
    not fit; uint8 is right on all of them."""

    exclude: tuple[str, ...] = ()
    """Operators, and regular expressions that find names: such products stay float."""

    at_least: int = 1024
    """Elements that a weight must have."""

    def __post_init__(self) -> None:
        """Check numbers and expressions."""
        super().__post_init__()
        if self.at_least < 1:
            raise OptionError("at_least", "a weight to round has an element at least")
        if fault := fault_of(self.exclude):
            raise OptionError("exclude", fault)

    def run(self, model: ir.Model) -> bool:
        """Rewrite in place; every weight is looked at before the first one is touched."""
        found = list(self._found(model))
        for each in unmatched(self.exclude, model):
            _LOG.warning("%s: exclude: no node is named like '%s'", self.name, each)
        weights = [each for each in found if isinstance(each, Multiplied)]
        self._refuse(weights)
        chosen = [each for each in weights if may_apply(self.name, each.value.name or "")]
        names, integers = Names.of(model), Integers(self.weights == "int8")
        for scope, node, weight in _in_order(model, chosen):
            tape = Tape(names, scope.opsets, node.name or self.name)
            made = integers.product(tape, scope, weight, node)
            splice(tape, [node], [(node.outputs[0], made)], in_function=scope.in_function)
        for weight in chosen:
            remove_unused_constant(weight.value)
        if chosen:
            left = Counter(each.reason for each in found if isinstance(each, Left))
            rest = "".join(f"; {n} stay, {reason}" for reason, n in sorted(left.items()))
            _LOG.warning("%s: the products of %d weights are in integers now%s",
                         self.name, len(chosen), rest)  # fmt: skip
        return bool(chosen)

    def round_likewise(self, model: ir.Model, done: set[ir.Value]) -> None:
        """Let products be those of rounded inputs and weights, in doubles."""
        names = Names.of(model)
        found = [each for each in self._found(model) if isinstance(each, Multiplied)]
        weights = [each for each in found if each.value not in done]
        for scope, node, weight in _in_order(model, weights):
            tape = Tape(names, scope.opsets, f"{node.name}/rounded")
            made = double_product(tape, weight, node)
            splice(tape, [node], [(node.outputs[0], made)], in_function=scope.in_function)
        done.update(each.value for each in weights)

    def _found(self, model: ir.Model) -> Iterator[Multiplied | Left]:
        """Yield the weights whose products can be in integers, and why others cannot."""
        for each in multiplied(model, self.at_least, lambda node: excludes(self.exclude, node)):
            why = None if isinstance(each, Left) else why_not_integers(each)
            yield Left(why) if why else each

    def _refuse(self, weights: list[Multiplied]) -> None:
        has = min((s.opsets.get("", 1) for w in weights for s, _ in w.users), default=_OPSET)
        if has < _OPSET:
            what = f"DynamicQuantizeLinear is there from opset {_OPSET} on"
            advice = f"put convert-opset{{to={_OPSET}}} before it"
            raise Refused(str(self), [Refusal(f"opset {has}", what, advice)])


def _in_order(
    model: ir.Model, weights: list[Multiplied]
) -> list[tuple[Scope, ir.Node, Multiplied]]:
    """Return products in the order of the graph, so that what one makes others can take."""
    place = {node: number for number, node in enumerate(all_nodes(model))}
    products = [(scope, node, weight) for weight in weights for scope, node in weight.users]
    return sorted(products, key=lambda each: place[each[1]])
