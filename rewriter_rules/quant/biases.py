"""The bias of a product: its third input, or a constant that its sum with nothing else adds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from vlmpass.ir_tools.evaluate import Array
from vlmpass.ir_tools.graph.constants import constant_of
from vlmpass.ir_tools.graph.read_attributes import float_of
from vlmpass.rewriter_rules.quant.plain import Multiplied

__all__ = ["Bias", "bias_of"]


@dataclass(frozen=True)
class Bias:
    """What a product has added, one number for each output.

    Attributes:
        value: The constant.
        numbers: Its numbers, as float32.
        add: The Add that adds them; None where the product does.
        index: Which of the inputs of either they are.
    """

    value: ir.Value
    numbers: Array
    add: ir.Node | None
    index: int

    def steps(self, scales: Array) -> Array | None:
        """Return it in whole steps, or None where 32 bits do not hold one of them.

        Args:
            scales: What a step is for each output.
        """
        with np.errstate(all="ignore"):  # a step may be so small that it is zero
            found = np.rint(self.numbers / scales)
        return found if bool((np.abs(found) < 2**31 - 128).all()) else None


def bias_of(weight: Multiplied, node: ir.Node) -> Bias | None:
    """Return the bias of a product; None if it has none, or not one number for each output.

    Args:
        weight: What it multiplies with.
        node: The product.
    """
    outputs = weight.matrix.shape[1 - weight.axis]
    if node.op_type != "MatMul":
        plain = float_of(node, "alpha", 1.0) == 1.0 == float_of(node, "beta", 1.0)
        return _bias(node, None, 2, outputs) if plain and len(node.inputs) > 2 else None
    value = node.outputs[0]
    uses = tuple(value.uses())
    if len(uses) != 1 or value.is_graph_output():
        return None
    add = uses[0].node
    if add.op_type != "Add" or add.domain or add.graph is not node.graph:
        return None
    return _bias(add, add, 1 - add.inputs.index(value), outputs)


def _bias(node: ir.Node, add: ir.Node | None, index: int, outputs: int) -> Bias | None:
    value = node.inputs[index]
    tensor = constant_of(value)
    if value is None or tensor is None or tensor.dtype != ir.DataType.FLOAT:
        return None
    if tuple(tensor.shape) != (outputs,):
        return None
    found = tensor.numpy()
    return Bias(value, found, add, index) if bool(np.isfinite(found).all()) else None
