"""A linear layer in a graph: the product and what belongs to it, the way exporters write it.

Exporters flatten the activation to a matrix, multiply, cast, shape the result back and add the
bias. A product of any rank needs none of the shapes, and some operators take the bias along.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from vlmpass.ir_tools.graph.constants import constant_of
from vlmpass.ir_tools.graph.read_attributes import float_of, int_of, refers
from vlmpass.ir_tools.shapes import Facts
from vlmpass.ir_tools.weights import expressions
from vlmpass.ir_tools.weights.leaves import Expression
from vlmpass.rewriter_rules.quant.constant import Constants, broadcast

__all__ = ["Linear", "Product", "layer_around", "product_of"]


@dataclass(frozen=True)
class Product:
    """A node that multiplies with a weight.

    Attributes:
        node: A MatMul or a Gemm.
        x: The activation.
        weight: The weight.
        turned: Whether the weight is [outputs, inputs].
    """

    node: ir.Node
    x: ir.Value
    weight: ir.Value
    turned: bool


@dataclass(frozen=True)
class Linear:
    """A whole layer.

    Attributes:
        product: The product in it.
        x: What enters: of any rank, the last axis is multiplied.
        bias: What is added, as [outputs]: a value of the graph if there is one of that shape.
        nodes: The nodes that it stands for, in order; all but the last have no other users.
    """

    product: Product
    x: ir.Value
    bias: ir.Value | Expression | None
    nodes: tuple[ir.Node, ...]

    @property
    def output(self) -> ir.Value:
        """The result."""
        return self.nodes[-1].outputs[0]


def product_of(node: ir.Node) -> Product | None:
    """Return a node as a product with a weight; None if it is none."""
    if node.domain or node.op_type not in ("MatMul", "Gemm") or refers(node):
        return None
    x, weight = node.inputs[:2]
    if x is None or weight is None:
        return None
    return Product(node, x, weight, turned=int_of(node, "transB", 0) != 0)


def layer_around(
    made: Product, whole: Expression, constants: Constants, facts: Facts
) -> Linear | None:
    """Return the layer around a product; None if a Gemm is more than product and bias.

    Args:
        made: The product.
        whole: Its weight, [inputs, outputs].
        constants: Of its scope.
        facts: Shapes proven for the scope.
    """
    node = made.node
    nodes, x = [node], made.x
    bias: ir.Value | Expression | None = None
    if node.op_type == "Gemm":
        added = node.inputs[2] if len(node.inputs) > 2 else None
        bias = _bias(added, 2, whole, constants)
        if _scales(node) or (added is not None and bias is None):
            return None
    while (following := _only_user(nodes[-1].outputs[0])) is not None:
        last = nodes[-1].outputs[0]
        if _does_nothing(following, last, whole):
            pass
        elif following.op_type == "Reshape" and x is made.x:
            source = _flattened(made.x)
            if source is None or not _shaped_back(following, source, whole, facts):
                break
            x = source
        elif following.op_type == "Add" and bias is None:
            other = following.inputs[1 if following.inputs[0] is last else 0]
            shape = facts[x].shape
            bias = _bias(other, 1 if shape is None else len(shape), whole, constants)
            if bias is None:
                break
        else:
            break
        nodes.append(following)
    return Linear(made, x, bias, tuple(nodes))


def _scales(gemm: ir.Node) -> bool:
    """Whether a Gemm has factors, or turns what it multiplies."""
    return (
        float_of(gemm, "alpha", 1.0) != 1.0
        or float_of(gemm, "beta", 1.0) != 1.0
        or bool(int_of(gemm, "transA", 0))
    )


def _only_user(value: ir.Value) -> ir.Node | None:
    uses = value.uses()
    if len(uses) != 1 or value.is_graph_output():
        return None
    (use,) = uses
    made = value.producer()
    same_graph = made is not None and use.node.graph is made.graph
    return use.node if same_graph and not use.node.domain else None


def _does_nothing(node: ir.Node, value: ir.Value, whole: Expression) -> bool:
    if node.inputs[0] is not value:
        return False
    if node.op_type == "Cast":
        return int_of(node, "to", 0) == whole.dtype
    return node.op_type == "Identity"


def _flattened(value: ir.Value) -> ir.Value | None:
    """Return what a Reshape makes the matrix of."""
    node = value.producer()
    reshapes = node is not None and (node.domain, node.op_type) == ("", "Reshape")
    return node.inputs[0] if node is not None and reshapes else None


def _shaped_back(node: ir.Node, source: ir.Value, whole: Expression, facts: Facts) -> bool:
    """Whether a Reshape gives the product the leading axes of the activation, as is proven.

    Then the matrix has as many rows as these axes have indices, and the activation's last axis is
    multiplied whole: no shape between them has another number of elements.
    """
    before = facts[source].shape
    if before is None or len(before) < 2:
        return False
    wanted = (*before[:-1], whole.shape[1])
    if facts[node.outputs[0]].shape == wanted:
        return True
    target = facts[node.inputs[1]].elements if len(node.inputs) > 1 else None
    pairs = zip(target or (), wanted, strict=False)
    return target is not None and len(target) == len(wanted) and all(a in (-1, b) for a, b in pairs)


def _bias(
    value: ir.Value | None, rank: int, whole: Expression, constants: Constants
) -> ir.Value | Expression | None:
    """Return what is added to a result of a rank as [outputs]; None if it is more than that."""
    found = constants.express(value)
    size = whole.shape[1]
    if found is None or found.dtype != whole.dtype or len(found.shape) > rank:
        return None
    if value is not None and found.shape == (size,) and constant_of(value) is not None:
        return value
    if found.size == 1:
        return broadcast(expressions.reshaped(found, (1,)), (size,))
    return expressions.reshaped(found, (size,)) if found.size == size == found.shape[-1] else None
