"""Folding into lazy weights: a large constant is moved or cast by the writer, never here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from vlmpass.ir_tools.evaluate import Array, evaluate
from vlmpass.ir_tools.evaluate.conform import conforms
from vlmpass.ir_tools.operators import keeping_order
from vlmpass.ir_tools.weights import Weight, as_weight, cast, concat, reshape, take, transpose

__all__ = ["fold_lazily"]

_RESHAPES = keeping_order() - {"Identity"}
_SMALL = 1 << 16
"""Bytes of an operand that says how to move the elements of another."""


def fold_lazily(
    node: ir.Node, inputs: Sequence[ir.TensorProtocol | None], opsets: Mapping[str, int]
) -> list[Weight] | None:
    """Return the outputs of a node as lazy weights, None where the algebra cannot say them.

    Args:
        node: A node of the default domain.
        inputs: Its constant inputs; none of the bytes of large ones are read.
        opsets: Imported opset version by domain.
    """
    data = inputs[0] if inputs else None
    if data is None or data.dtype == ir.DataType.STRING:
        return None
    opset = opsets.get("", opsets.get("ai.onnx", 1))
    types = [None if tensor is None else tensor.dtype for tensor in inputs]
    if not conforms(node, types, opset):
        return None
    weight = as_weight(data)
    if node.op_type == "Identity":
        return [weight]
    if node.op_type == "Cast":
        return _cast(weight, node)
    if node.op_type == "Concat":
        parts = [as_weight(tensor) for tensor in inputs if tensor is not None]
        return _concat(parts, node.attributes.get_int("axis", 1))
    if node.op_type not in _MOVED:
        return None
    operands = _operands(inputs)
    shapes = None if operands is None else _shapes(node, data, operands, opsets)
    return None if shapes is None else _moved(weight, node, shapes, operands or [])


_MOVED = frozenset({*_RESHAPES, "Transpose", "Split", "Slice"})


def _operands(inputs: Sequence[ir.TensorProtocol | None]) -> list[Array | None] | None:
    """Return the inputs behind the first, which are small in any sensible model."""
    rest = inputs[1:]
    if any(tensor is not None and tensor.nbytes > _SMALL for tensor in rest):
        return None
    return [None if tensor is None else tensor.numpy() for tensor in rest]


def _shapes(
    node: ir.Node,
    data: ir.TensorProtocol,
    operands: list[Array | None],
    opsets: Mapping[str, int],
) -> list[tuple[int, ...]] | None:
    """Return the shapes of the outputs, by evaluating the node on one number seen everywhere."""
    sizes = tuple(int(size) for size in data.shape.numpy())
    everywhere = np.broadcast_to(np.zeros((), data.dtype.numpy()), sizes)
    found = evaluate(node, [everywhere, *operands], opsets)
    return None if found is None else [each.shape for each in found]


def _moved(
    weight: Weight, node: ir.Node, shapes: list[tuple[int, ...]], operands: list[Array | None]
) -> list[Weight] | None:
    if node.op_type in _RESHAPES:
        return [reshape(weight, shapes[0])]
    if node.op_type == "Transpose":
        axes = tuple(reversed(range(len(weight.shape))))
        return [transpose(weight, node.attributes.get_ints("perm", axes))]
    if node.op_type == "Split":
        return _split(weight, node.attributes.get_int("axis", 0), shapes)
    return _slice(weight, operands)


def _cast(weight: Weight, node: ir.Node) -> list[Weight] | None:
    """Cast floats to floats, which is defined for every value and never grows in surprise."""
    dtype = ir.DataType(node.attributes.get_int("to", 0))
    if not (weight.dtype.is_floating_point() and dtype.is_floating_point()):
        return None
    if dtype.bitwidth < 16 or weight.dtype.bitwidth < 16:
        return None
    return [cast(weight, dtype)] if node.attributes.get_int("saturate", 1) else None


def _concat(parts: Sequence[Weight], axis: int) -> list[Weight] | None:
    shapes = [[int(size) for size in part.shape.numpy()] for part in parts]
    rank = len(shapes[0])
    if not -rank <= axis < rank or len({len(shape) for shape in shapes}) > 1:
        return None
    others = {tuple(shape[:axis] + shape[axis:][1:]) for shape in shapes}
    same = len(others) == len({part.dtype for part in parts}) == 1
    return [concat(parts, axis)] if same else None


def _split(weight: Weight, axis: int, shapes: list[tuple[int, ...]]) -> list[Weight]:
    start, parts = 0, []
    for shape in shapes:
        parts.append(take(weight, axis, start, start + shape[axis]))
        start += shape[axis]
    return parts


def _slice(weight: Weight, operands: list[Array | None]) -> list[Weight] | None:
    """Take a part; the operands have been found to fit."""
    rows = [None if array is None else array.tolist() for array in operands]
    starts, ends, axes, steps = [*rows, None, None, None, None][:4]
    if starts is None or ends is None or (steps and set(steps) != {1}):
        return None
    shape = weight.shape.numpy()
    for index, axis in enumerate(range(len(starts)) if axes is None else axes):
        start, stop, _ = slice(starts[index], ends[index]).indices(shape[axis])
        weight = take(weight, axis, start, max(start, stop))
    return [weight]
