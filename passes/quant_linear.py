"""The pass that turns dequantisations written out by exporters into one node for each layer."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import onnx_ir as ir

from vlmpass.ir_tools.errors import Refusal, Refused
from vlmpass.ir_tools.graph.edit import remove_unused_constant
from vlmpass.ir_tools.graph.effects import Effect
from vlmpass.ir_tools.graph.limit import may_apply
from vlmpass.ir_tools.graph.names import Names
from vlmpass.ir_tools.graph.tape import Tape, splice
from vlmpass.ir_tools.system.opsets import newest_opset
from vlmpass.ir_tools.types.conflict import label
from vlmpass.passes.pipeline.base import Pass
from vlmpass.passes.pipeline.needs import Need
from vlmpass.rewriter_rules.opset import raise_ir_version
from vlmpass.rewriter_rules.quant.calls import drop_unused_inputs, used_inputs
from vlmpass.rewriter_rules.quant.emit import (
    BLOCKED_OPSET,
    NBITS_BLOCKS,
    Builder,
    Shared,
    dequantize_linear,
    float_weight,
    held_as,
    matmul_nbits,
    significant_bits,
    unfit_zeros,
    unrounded,
    why_not_matmul_nbits,
)
from vlmpass.rewriter_rules.quant.find import Layer, find_layers
from vlmpass.rewriter_rules.quant.recognize import Odd, Quantized
from vlmpass.rewriter_rules.quant.shifts import find_shifts

__all__ = ["QuantLinear"]

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class QuantLinear(Pass):
    """Turn unpacked and dequantised weights (GPTQ, AWQ) into one node for each linear layer.

    The shapes that exporters put around the product go, and MatMulNBits takes the bias along. Rows
    that are not in the order of their groups (act-order) cost a Gather before the layer.
    """

    name: ClassVar[str] = "quant-linear"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.SHAPES})
    nothing: ClassVar[str] = "the model has no linear layer with packed weights (GPTQ, AWQ)"
    effects: ClassVar[frozenset[Effect]] = frozenset({Effect.ROUNDS_CONSTANTS})

    to: Literal["dequantize-linear", "matmul-nbits", "float"] = "matmul-nbits"
    """What a layer becomes: DequantizeLinear and the product, MatMulNBits, or the product with
    plain weights."""

    def run(self, model: ir.Model) -> bool:
        """Rewrite in place; every layer is checked before the first one is touched."""
        layers = list(find_layers(model, NBITS_BLOCKS if self.to == "matmul-nbits" else None))
        refusals = [
            Refusal(label(layer.linear.product.node), *why)
            for layer in layers
            if (why := self._why_not(layer)) is not None
        ]
        if refusals:
            raise Refused(f"{self.name} to {self.to}", refusals)
        shifts = sum(1 for _ in find_shifts(model)) if layers else 0
        names, shared = Names.of(model), Shared()
        moved: dict[ir.Value, ir.Value] = {}
        formals = used_inputs(model)
        done = [each for each in layers if may_apply(self.name, label(each.linear.product.node))]
        for layer in done:
            self._rewrite(model, layer, names, shared, moved)
        drop_unused_inputs(model, formals)
        raise_ir_version(model)
        _note_shifts(shifts if done else 0)
        if self.to == "matmul-nbits":
            _note_unrounded([each.weight for each in done])
        return bool(done)

    def _why_not(self, layer: Layer) -> tuple[str, str] | None:
        found = layer.weight
        if isinstance(found, Odd):
            if found.whole is None:
                return found.reason, found.remedy
            return None if self.to == "float" else (found.reason, "choose to=float")
        if self.to == "matmul-nbits" and (reason := why_not_matmul_nbits(found)) is not None:
            return reason, "choose to=dequantize-linear or to=float"
        if self.to != "dequantize-linear":
            return None
        opset = layer.scope.opsets.get("", 1)
        if held_as(found, opset) is None:
            return f"{unfit_zeros(found)} 16 bits", "choose to=float"
        if opset < BLOCKED_OPSET:
            return (
                f"blocked DequantizeLinear needs opset {BLOCKED_OPSET}",
                f"put convert-opset{{to={BLOCKED_OPSET}}} before it",
            )
        return None

    def _rewrite(
        self,
        model: ir.Model,
        layer: Layer,
        names: Names,
        shared: Shared,
        moved: dict[ir.Value, ir.Value],
    ) -> None:
        linear, scope = layer.linear, layer.scope
        if self.to == "matmul-nbits":
            for owner in (scope.owner, model.graph):
                owner.opset_imports.setdefault("com.microsoft", 1)
        tape = Tape(names, scope.opsets, linear.product.node.name or self.name)
        builder = Builder(tape, linear, moved.get(linear.x, linear.x), shared.of(layer))
        assert layer.weight.whole is not None
        result = self._build(builder, layer.weight)
        result.type = result.type or ir.TensorType(layer.weight.whole.dtype)
        reason = self._reason(layer.weight, scope.opsets.get("", 1))
        for new in tape.nodes:
            new.metadata_props["vlmpass.reason"] = reason
        old = linear.output
        inputs = dict.fromkeys(value for node in linear.nodes for value in node.inputs if value)
        splice(tape, linear.nodes, [(old, result)], in_function=scope.in_function)
        moved[old] = result
        for value in inputs:
            remove_unused_constant(value)

    def _build(self, builder: Builder, weight: Quantized | Odd) -> ir.Value:
        if isinstance(weight, Odd) or self.to == "float":
            assert weight.whole is not None
            return float_weight(builder, weight.whole)
        if self.to == "matmul-nbits":
            return matmul_nbits(builder, weight)
        return dequantize_linear(builder, weight)

    def _reason(self, weight: Quantized | Odd, opset: int) -> str:
        if isinstance(weight, Odd):
            return f"plain weights, since {weight.reason}"
        if self.to == "float":
            return f"{weight.bits}-bit numbers written out"
        text = f"{weight.bits}-bit numbers in blocks of {weight.block}"
        if weight.order is not None:
            text += ", rows in the order of their groups"
        held = held_as(weight, opset) if self.to == "dequantize-linear" else None
        if held is not None and held.bitwidth > weight.bits:
            text += f", held in {held.bitwidth}, {_why_wider(weight, opset)}"
        return text


def _why_wider(weight: Quantized, opset: int) -> str:
    newest = held_as(weight, newest_opset())
    if newest is not None and newest.bitwidth == weight.bits:
        return f"since opset {opset} has no blocks of {weight.bits}"
    return f"since {unfit_zeros(weight)} {weight.bits}"


def _note_shifts(count: int) -> None:
    """Say that the source unpacks other weights than the model that it was exported from."""
    if count:
        _LOG.warning(
            "%d divisions of packed words are shifts that the exporter did not keep: the weights "
            "are those of the graph, not PyTorch's; --mend-shifts gives PyTorch's",
            count,
        )


def _note_unrounded(weights: Sequence[Quantized | Odd]) -> None:
    """Say which weights are used as they are defined, where the graph rounded them first."""
    kinds = [unrounded(each) for each in weights if isinstance(each, Quantized)]
    for dtype, count in Counter(kind for kind in kinds if kind is not None).items():
        _LOG.warning(
            "scale times number, which the source rounds to %s (by at most 2^-%d of it), is used "
            "as it is; linear layers: %d",
            dtype.name.lower(), significant_bits(dtype), count,
        )  # fmt: skip
