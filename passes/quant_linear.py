"""The pass that turns dequantisations written out by exporters into one node for each layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import onnx_ir as ir

from vlmpass.ir_tools.errors import Refusal, Refused
from vlmpass.ir_tools.names import Names
from vlmpass.ir_tools.tape import Tape, splice
from vlmpass.ir_tools.types.conflict import label
from vlmpass.ir_tools.walk import Scope, scopes
from vlmpass.passes.base import Pass
from vlmpass.rewriter_rules.quant.constant import Constants
from vlmpass.rewriter_rules.quant.emit import (
    dequantize_linear,
    float_weight,
    matmul_nbits,
    why_not_dequantize_linear,
    why_not_matmul_nbits,
)
from vlmpass.rewriter_rules.quant.recognize import Quantized, recognize

__all__ = ["QuantLinear"]

_BLOCKED_OPSET = {2: 25, 4: 21, 8: 21}
"""The opset from which DequantizeLinear has blocks and numbers of so many bits."""

_BUILD: dict[str, Callable[[Tape, ir.Value, Quantized], ir.Value]] = {
    "dequantize-linear": dequantize_linear,
    "matmul-nbits": matmul_nbits,
    "float": float_weight,
}


@dataclass(frozen=True)
class QuantLinear(Pass):
    """Turn unpacked and dequantised weights (GPTQ, AWQ) into one node for each linear layer."""

    name: ClassVar[str] = "quant-linear"

    to: Literal["dequantize-linear", "matmul-nbits", "float"] = "matmul-nbits"
    """What a layer becomes; `float` means a MatMul with plain weights."""

    def run(self, model: ir.Model) -> bool:
        """Rewrite in place; every layer is checked before the first one is touched."""
        found = [
            (scope, node, quantized)
            for scope in scopes(model)
            if not scope.in_function
            for node, quantized in self._layers(scope)
        ]
        refusals = [
            Refusal(label(node), *why)
            for scope, node, quantized in found
            if (why := self._why_not(scope, quantized)) is not None
        ]
        if refusals:
            raise Refused(f"{self.name} to {self.to}", refusals)
        names = Names.of(model)
        for scope, node, quantized in found:
            self._rewrite(scope, node, quantized, names)
        return bool(found)

    @staticmethod
    def _layers(scope: Scope) -> list[tuple[ir.Node, Quantized]]:
        constants = Constants(scope.opsets)
        known: dict[ir.Value, Quantized | None] = {}
        found = []
        for node in scope.graph:
            if (node.domain, node.op_type) != ("", "MatMul") or node.inputs[1] is None:
                continue
            weight = node.inputs[1]
            if weight not in known:
                known[weight] = recognize(weight, constants)
            quantized = known[weight]
            if quantized is not None:
                found.append((node, quantized))
        return found

    def _why_not(self, scope: Scope, found: Quantized) -> tuple[str, str] | None:
        if self.to == "matmul-nbits" and (reason := why_not_matmul_nbits(found)) is not None:
            return reason, "choose to=dequantize-linear or to=float"
        if self.to == "dequantize-linear" and (reason := why_not_dequantize_linear(found)):
            return reason, "choose to=float"
        needed = _BLOCKED_OPSET[found.bits]
        if self.to == "dequantize-linear" and scope.opsets.get("", 1) < needed:
            return (
                f"blocked DequantizeLinear of {found.bits} bits needs opset {needed}",
                f"put convert-opset{{to={needed}}} before it",
            )
        return None

    def _rewrite(self, scope: Scope, node: ir.Node, found: Quantized, names: Names) -> None:
        x, weight = node.inputs[0], node.inputs[1]
        assert x is not None
        if self.to == "matmul-nbits":
            scope.owner.opset_imports.setdefault("com.microsoft", 1)
        tape = Tape(names, scope.opsets, node.name or "quant-linear")
        result = _BUILD[self.to](tape, x, found)
        if result.type is None:
            result.type = ir.TensorType(found.dtype)
        what = f"{found.bits}-bit numbers in blocks of {found.block}"
        order = ", rows in the order of their groups" if found.order is not None else ""
        for new in tape.nodes:
            new.metadata_props["vlmpass.reason"] = what + order
        splice(tape, [node], [(node.outputs[0], result)], in_function=False)
        _drop(weight)


def _drop(value: ir.Value | None) -> None:
    """Remove what computed a value that nothing uses any more, initializers included."""
    pending = [value]
    while pending:
        top = pending.pop()
        if top is None or top.uses() or top.is_graph_output() or top.is_graph_input():
            continue
        node = top.producer()
        if node is None:
            if top.is_initializer() and top.graph is not None:
                top.graph.initializers.pop(str(top.name), None)
            continue
        unused = all(not each.uses() and not each.is_graph_output() for each in node.outputs)
        if node.graph is not None and unused:
            inputs = list(node.inputs)
            node.graph.remove(node, safe=True)
            pending += inputs
