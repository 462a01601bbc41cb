"""Folding into lazy weights: a large constant is moved or cast by the writer, never here."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from vlmpass.ir_tools.shapes import Facts
from vlmpass.ir_tools.weights import Weight, as_weight, cast, concat, reshape, take, transpose

__all__ = ["fold_lazily"]

_RESHAPES = frozenset({"Reshape", "Squeeze", "Unsqueeze", "Flatten"})


def fold_lazily(
    node: ir.Node, inputs: Sequence[ir.TensorProtocol | None], facts: Facts
) -> list[Weight] | None:
    """Return the outputs of a node as lazy weights, None where the algebra cannot say them.

    Args:
        node: A node of the default domain.
        inputs: Its constant inputs, of any size; none of their bytes are read.
        facts: What is known about its inputs and outputs.
    """
    data = inputs[0] if inputs else None
    if data is None or data.dtype == ir.DataType.STRING:
        return None
    weight = as_weight(data)
    if node.op_type == "Identity":
        return [weight]
    if node.op_type == "Cast":
        return _cast(weight, ir.DataType(node.attributes.get_int("to", 0)))
    if node.op_type in _RESHAPES:
        shape = facts[node.outputs[0]].static
        return None if shape is None else [reshape(weight, shape)]
    if node.op_type == "Transpose":
        axes = tuple(reversed(range(len(weight.shape))))
        return [transpose(weight, node.attributes.get_ints("perm", axes))]
    if node.op_type == "Concat":
        parts = [as_weight(tensor) for tensor in inputs if tensor is not None]
        return [concat(parts, node.attributes.get_int("axis", 1))]
    if node.op_type == "Split":
        return _split(weight, node, facts)
    return _slice(weight, node, facts) if node.op_type == "Slice" else None


def _cast(weight: Weight, dtype: ir.DataType) -> list[Weight] | None:
    """Cast floats to floats, which is defined for every value and never grows in surprise."""
    if not (weight.dtype.is_floating_point() and dtype.is_floating_point()):
        return None
    if dtype.bitwidth < 16 or weight.dtype.bitwidth < 16:
        return None
    return [cast(weight, dtype)]


def _split(weight: Weight, node: ir.Node, facts: Facts) -> list[Weight] | None:
    axis = node.attributes.get_int("axis", 0)
    start, parts = 0, []
    for output in node.outputs:
        shape = facts[output].static
        if shape is None:
            return None
        parts.append(take(weight, axis, start, start + shape[axis]))
        start += shape[axis]
    return parts


def _slice(weight: Weight, node: ir.Node, facts: Facts) -> list[Weight] | None:
    given = [facts[value].numbers if value is not None else None for value in node.inputs[1:]]
    starts, ends, axes, steps = [*given, None, None, None, None][:4]
    if starts is None or ends is None or (steps and set(steps) != {1}):
        return None
    if len(node.inputs) > 3 and node.inputs[3] is not None and axes is None:
        return None
    shape = weight.shape.numpy()
    for index, axis in enumerate(range(len(starts)) if axes is None else axes):
        start, stop, _ = slice(starts[index], ends[index]).indices(shape[axis])
        weight = take(weight, axis, start, max(start, stop))
    return [weight]
