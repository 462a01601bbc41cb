"""The pass that turns dequantisations written out by exporters into one node for each layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import onnx_ir as ir

from vlmpass.ir_tools.edit import remove_unused_constant
from vlmpass.ir_tools.errors import Refusal, Refused
from vlmpass.ir_tools.limit import may_apply
from vlmpass.ir_tools.names import Names
from vlmpass.ir_tools.tape import Tape, splice
from vlmpass.ir_tools.types.conflict import label
from vlmpass.passes.base import Pass
from vlmpass.rewriter_rules.quant.calls import drop_unused_inputs, used_inputs
from vlmpass.rewriter_rules.quant.emit import (
    NBITS_BLOCKS,
    Builder,
    Shared,
    dequantize_linear,
    float_weight,
    held_as,
    matmul_nbits,
    unfit_zeros,
    why_not_matmul_nbits,
)
from vlmpass.rewriter_rules.quant.find import Layer, find_layers
from vlmpass.rewriter_rules.quant.recognize import Odd, Quantized

__all__ = ["QuantLinear"]

_BLOCKED_OPSET = {2: 25, 4: 21, 8: 21, 16: 21}
"""The opset from which DequantizeLinear has blocks and numbers of so many bits."""


@dataclass(frozen=True)
class QuantLinear(Pass):
    """Turn unpacked and dequantised weights (GPTQ, AWQ) into one node for each linear layer.

    The shapes that exporters put around the product go, and MatMulNBits takes the bias along. Rows
    that are not in the order of their groups (act-order) cost a Gather before the layer.
    """

    name: ClassVar[str] = "quant-linear"

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
        names, shared = Names.of(model), Shared()
        moved: dict[ir.Value, ir.Value] = {}
        formals = used_inputs(model)
        changed = False
        for layer in layers:
            if may_apply(self.name, label(layer.linear.product.node)):
                self._rewrite(model, layer, names, shared, moved)
                changed = True
        drop_unused_inputs(model, formals)
        return changed

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
        dtype = held_as(found)
        if dtype is None:
            return f"{unfit_zeros(found)} 16 bits", "choose to=float"
        needed = _BLOCKED_OPSET[dtype.bitwidth]
        if layer.scope.opsets.get("", 1) < needed:
            return (
                f"blocked DequantizeLinear of {dtype.bitwidth} bits needs opset {needed}",
                f"put convert-opset{{to={needed}}} before it",
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
        for new in tape.nodes:
            new.metadata_props["vlmpass.reason"] = self._reason(layer.weight)
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

    def _reason(self, weight: Quantized | Odd) -> str:
        if isinstance(weight, Odd):
            return f"plain weights, since {weight.reason}"
        if self.to == "float":
            return f"{weight.bits}-bit numbers written out"
        text = f"{weight.bits}-bit numbers in blocks of {weight.block}"
        if weight.order is not None:
            text += ", rows in the order of their groups"
        held = held_as(weight) if self.to == "dequantize-linear" else None
        if held is not None and held.bitwidth > weight.bits:
            text += f", held in {held.bitwidth}, since {unfit_zeros(weight)} {weight.bits}"
        return text
