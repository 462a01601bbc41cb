"""The pass that rounds what products multiply to 8 bits, by ranges that were measured before."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Literal

import onnx_ir as ir

from vlmpass.ir_tools.errors import Refusal, Refused
from vlmpass.ir_tools.graph.constants import constant_of
from vlmpass.ir_tools.graph.edit import remove_unused_constant
from vlmpass.ir_tools.graph.limit import may_apply
from vlmpass.ir_tools.graph.names import Names
from vlmpass.ir_tools.graph.tape import Tape, splice
from vlmpass.ir_tools.graph.walk import Scope, all_nodes
from vlmpass.ir_tools.run.calibration import calibration_feeds
from vlmpass.ir_tools.run.spans import spans
from vlmpass.ir_tools.targets.rounding import Rounding
from vlmpass.passes.pipeline.base import OptionError, Pass
from vlmpass.passes.pipeline.measuring_once import measures
from vlmpass.passes.pipeline.target_option import target_of
from vlmpass.rewriter_rules.quant.biases import Bias, bias_of
from vlmpass.rewriter_rules.quant.excluded import excludes, fault_of, unmatched
from vlmpass.rewriter_rules.quant.in_qdq import RoundedProducts
from vlmpass.rewriter_rules.quant.levels import Levels
from vlmpass.rewriter_rules.quant.plain import Left, Multiplied, multiplied
from vlmpass.rewriter_rules.quant.rounded_floats import FloatProduct

__all__ = ["QuantizeStatic"]

_LOG = logging.getLogger(__name__)
_OPSET = 13
"""The opset from which DequantizeLinear has an axis."""
_Levels = dict[ir.Node, Levels]
_Product = tuple[Scope, ir.Node, Multiplied]


@dataclass(frozen=True)
class QuantizeStatic(Pass):
    """Put MatMul, Gemm and Conv between QuantizeLinear and DequantizeLinear of 8 bits.

    Weights have one scale for each output; of inputs the range is that of the runs that `calibrate`
    gives. LayerNormalization, Softmax and products of activations, as in attention, stay float. A
    result is compared with the source whose inputs and weights are rounded likewise, by definition
    and in floats, and how far rounding takes its outputs is said.
    """

    name: ClassVar[str] = "quantize-static"
    nothing: ClassVar[str] = "no product has a float weight to round"
    rounds: ClassVar[str] = "weights and what they multiply"

    calibrate: str
    """Inputs to measure ranges with: an .npz file, a folder of them, or `random` to generate some.

    The model runs in segments of bounded weights, so that it may be larger than memory."""

    method: Literal["min-max", "percentile", "entropy"] = "min-max"
    """What of a measured value counts: all, most of it, or what 8 bits tell the most of."""

    percentile: float = 99.999
    """The percentage that counts with `method=percentile`."""

    target: str = "ort-cpu"
    """Whose products of integers are meant; its profile says which operators and types it takes."""

    exclude: tuple[str, ...] = ()
    """Operators, and regular expressions that find names: such products stay float."""

    at_least: int = 1024
    """Elements that a weight must have."""

    def __post_init__(self) -> None:
        """Check numbers, expressions and the target."""
        super().__post_init__()
        if not self.calibrate:
            remedy = "name an .npz file or a folder of them, or say random"
            raise OptionError("calibrate", "there are no inputs of no name", remedy=remedy)
        if not 50 < self.percentile <= 100:
            what = f"{self.percentile} is not the most of it"
            raise OptionError("percentile", what, remedy="give 50 < percentile <= 100")
        if self.at_least < 1:
            raise OptionError("at-least", "a weight to round has an element at least")
        if fault := fault_of(self.exclude):
            raise OptionError("exclude", fault)
        if self._rounding is None:
            what = f"nothing is known of products of rounded numbers on {self.target}"
            remedy = "its profile says so under [rounds], see docs/targets.md"
            raise OptionError("target", what, remedy=remedy)

    @cached_property
    def _rounding(self) -> Rounding | None:
        """What the target's profile says; it is a long file, and is read once."""
        return target_of(self.target).rounds

    @property
    def _wanted(self) -> Rounding:
        assert self._rounding is not None
        return self._rounding

    def run(self, model: ir.Model) -> bool:
        """Rewrite in place, once all that is to be rounded was measured."""
        found = list(self._found(model))
        for each in unmatched(self.exclude, model):
            _LOG.warning("%s: exclude: no node is named like '%s'", self.name, each)
        weights = [each for each in found if isinstance(each, Multiplied)]
        chosen = [each for each in weights if may_apply(self.name, each.value.name or "")]
        if not chosen:
            return False
        self._refuse(chosen)
        names, products = Names.of(model), _in_order(model, chosen)
        biases = self._biases(products)
        written = RoundedProducts(*self._levels(model, products), biases)
        for scope, node, weight in products:
            tape = Tape(names, scope.opsets, node.name or self.name)
            made = written.product(tape, weight, node)
            splice(tape, [node], [(node.outputs[0], made)], in_function=scope.in_function)
            if node in biases and biases[node].add is not None:
                tape = Tape(names, scope.opsets, node.name or self.name)
                _add(tape, biases[node], written.bias(tape, weight, node))
        for value in (*(each.value for each in chosen), *(each.value for each in biases.values())):
            remove_unused_constant(value)
        left = Counter(each.reason for each in found if isinstance(each, Left))
        rest = "".join(f"; {n} stay, {reason}" for reason, n in sorted(left.items()))
        where = "between QuantizeLinear and DequantizeLinear"
        _LOG.warning("%s: %d products of %d weights are %s now%s",
                     self.name, len(products), len(chosen), where, rest)  # fmt: skip
        return True

    def round_likewise(self, model: ir.Model, done: set[ir.Value]) -> None:
        """Let products be those of rounded inputs and weights, in floats."""
        found = [each for each in self._found(model) if isinstance(each, Multiplied)]
        weights = [each for each in found if each.value not in done]
        names, products = Names.of(model), _in_order(model, weights)
        levels, outputs = self._levels(model, products) if products else ({}, {})
        biases = self._biases(products)
        for scope, node, weight in products:
            bias = biases.get(node)
            likewise = FloatProduct(weight, node, levels[node], outputs.get(node), bias)
            tape = Tape(names, scope.opsets, f"{node.name}/rounded")
            made, held = likewise.product(tape)
            done.add(held)  # which no later pass rounds again
            splice(tape, [node], [(node.outputs[0], made)], in_function=scope.in_function)
            if bias is not None and bias.add is not None:
                tape = Tape(names, scope.opsets, f"{node.name}/rounded")
                _add(tape, bias, likewise.added(tape))
        done.update(each.value for each in weights)

    def _found(self, model: ir.Model) -> Iterator[Multiplied | Left]:
        """Yield the weights whose products can be rounded, and why others stay."""
        for each in multiplied(model, self.at_least, lambda node: excludes(self.exclude, node)):
            why = None if isinstance(each, Left) else self._why_not(model, each)
            yield Left(why) if why else each

    def _why_not(self, model: ir.Model, weight: Multiplied) -> str | None:
        """Return why products of a weight stay float, after "that are"."""
        if weight.matrix.dtype != ir.DataType.FLOAT:
            return f"of {weight.matrix.dtype.name.lower()}"
        for scope, node in weight.users:
            if node.op_type not in self._wanted.operators:
                return f"of {node.op_type}, which {self.target} does not take in integers"
            if scope.graph is not model.graph:
                return "in a function, branch or loop, where nothing is measured"
            x = node.inputs[0]
            if x is None or constant_of(x, model.ir_version) is not None:
                return "of constants alone"
        return None

    def _biases(self, products: list[_Product]) -> dict[ir.Node, Bias]:
        """Return those of products that the target wants rounded."""
        wanted = [each for each in products if each[1].op_type in self._wanted.biases]
        found = ((node, bias_of(weight, node)) for _, node, weight in wanted)
        return {node: bias for node, bias in found if bias is not None}

    def _levels(self, model: ir.Model, products: list[_Product]) -> tuple[_Levels, _Levels]:
        """Measure what products take and give, and return what either is rounded to."""
        nodes = [node for _, node, _ in products]
        takes = {node: str(x.name) for node in nodes if (x := node.inputs[0]) is not None}
        gives = {n: str(n.outputs[0].name) for n in nodes if n.op_type in self._wanted.outputs}
        names = list(dict.fromkeys((*takes.values(), *gives.values())))
        found = measures().spans.setdefault(str(self), {})
        if missing := [name for name in names if name not in found]:
            feeds = calibration_feeds(self.calibrate, model)
            found.update(spans(model, missing, feeds, self.method, self.percentile))
        if nothing := [name for name in names if name not in found]:
            what = "has no elements on the inputs that ranges are measured with"
            empty = [Refusal(f"value {each}", what, "give other inputs") for each in nothing]
            raise Refused(str(self), empty)
        made = {
            name: Levels.of(found[name].low, found[name].high, self._wanted.activations)
            for name in names
        }
        inputs, outputs = ({n: made[name] for n, name in each.items()} for each in (takes, gives))
        return inputs, outputs

    def _refuse(self, weights: list[Multiplied]) -> None:
        has = min(scope.opsets.get("", 1) for each in weights for scope, _ in each.users)
        if has < _OPSET:
            what = f"DequantizeLinear has a scale for each output from opset {_OPSET} on"
            advice = f"put convert-opset{{to={_OPSET}}} before it"
            raise Refused(str(self), [Refusal(f"opset {has}", what, advice)])


def _add(tape: Tape, bias: Bias, rounded: ir.Value) -> None:
    """Let the Add of a product's bias add what that was rounded to."""
    add = bias.add
    if add is None or add.inputs[bias.index] is rounded:
        return
    inputs = list(add.inputs)
    inputs[bias.index] = rounded
    made = tape.node("Add", inputs)[0]
    old = add.outputs[0], made
    splice(tape, [add], [old], in_function=False)


def _in_order(model: ir.Model, weights: list[Multiplied]) -> list[_Product]:
    """Return products in the order of the graph, so that what one makes others can take."""
    place = {node: number for number, node in enumerate(all_nodes(model))}
    products = [(scope, node, weight) for weight in weights for scope, node in weight.users]
    return sorted(products, key=lambda each: place[each[1]])
