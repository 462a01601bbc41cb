"""Numpy kernels of the operators that move, choose or make elements; all exact for every type."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from vlmpass.ir_tools.errors import ModelError
from vlmpass.ir_tools.evaluate.arithmetic import Array, Inputs, is_float
from vlmpass.ir_tools.weights import as_weight, cast

__all__ = ["MOVES"]


def _ints(array: Array) -> list[int]:
    return [int(item) for item in np.ravel(array)]


def _axes(node: ir.Node, inputs: Inputs) -> list[int] | None:
    if len(inputs) > 1:
        return None if inputs[1] is None else _ints(inputs[1])
    given = node.attributes.get_ints("axes")
    return None if given is None else list(given)


def _data(inputs: Inputs) -> Array:
    assert inputs[0] is not None
    return inputs[0]


def _need(inputs: Inputs, index: int) -> Array:
    array = inputs[index]
    assert array is not None
    return array


def _identity(node: ir.Node, inputs: Inputs, opset: int) -> Array:
    return _data(inputs)


def _reshape(node: ir.Node, inputs: Inputs, opset: int) -> Array:
    data = _data(inputs)
    target = _ints(_need(inputs, 1)) if len(inputs) > 1 else node.attributes.get_ints("shape", ())
    zero = node.attributes.get_int("allowzero", 0)
    dims = [data.shape[i] if dim == 0 and not zero else dim for i, dim in enumerate(target)]
    return data.reshape(dims)


def _flatten(node: ir.Node, inputs: Inputs, opset: int) -> Array:
    data = _data(inputs)
    axis = node.attributes.get_int("axis", 1)
    axis = axis + data.ndim if axis < 0 else axis
    return data.reshape(math.prod(data.shape[:axis]), math.prod(data.shape[axis:]))


def _squeeze(node: ir.Node, inputs: Inputs, opset: int) -> Array:
    axes = _axes(node, inputs)
    return np.squeeze(_data(inputs), None if axes is None else tuple(axes))


def _unsqueeze(node: ir.Node, inputs: Inputs, opset: int) -> Array:
    axes = _axes(node, inputs)
    assert axes is not None
    return np.expand_dims(_data(inputs), tuple(axes))


def _transpose(node: ir.Node, inputs: Inputs, opset: int) -> Array:
    return np.transpose(_data(inputs), node.attributes.get_ints("perm"))


def _concat(node: ir.Node, inputs: Inputs, opset: int) -> Array:
    arrays = [array for array in inputs if array is not None]
    return np.concatenate(arrays, node.attributes.get_int("axis", 1))


def _slice(node: ir.Node, inputs: Inputs, opset: int) -> Array:
    data = _data(inputs)
    given: list[Sequence[int] | None]
    if opset < 10:
        starts = list(node.attributes.get_ints("starts", ()))
        ends = list(node.attributes.get_ints("ends", ()))
        given = [node.attributes.get_ints("axes")]
    else:
        starts, ends = _ints(_need(inputs, 1)), _ints(_need(inputs, 2))
        given = [None if array is None else _ints(array) for array in inputs[3:5]]
    axes, steps = [*given, None, None][:2]
    where = [slice(None)] * data.ndim
    for index, axis in enumerate(range(len(starts)) if axes is None else axes):
        step = 1 if steps is None else steps[index]
        where[axis] = slice(starts[index], ends[index], step)
        if step < 0:  # bounds below the first element mean "before it", not "from the end"
            where[axis] = slice(*_backwards(starts[index], ends[index], data.shape[axis]), step)
    return data[tuple(where)]


def _backwards(start: int, end: int, size: int) -> tuple[int, int | None]:
    start = start + size if start < 0 else start
    end = end + size if end < 0 else end
    if start < 0:
        return 0, 0
    return min(start, size - 1), None if end < 0 else end


def _gather(node: ir.Node, inputs: Inputs, opset: int) -> Array:
    return np.take(_data(inputs), _need(inputs, 1), node.attributes.get_int("axis", 0))


def _gather_elements(node: ir.Node, inputs: Inputs, opset: int) -> Array:
    data, indices = _data(inputs), _need(inputs, 1)
    axis = node.attributes.get_int("axis", 0)
    where = np.where(indices < 0, indices + data.shape[axis], indices)
    return np.take_along_axis(data, where, axis)


def _split(node: ir.Node, inputs: Inputs, opset: int) -> list[Array]:
    data = _data(inputs)
    axis = node.attributes.get_int("axis", 0)
    count = len(node.outputs)
    given = inputs[1] if len(inputs) > 1 else None
    sizes = _ints(given) if given is not None else node.attributes.get_ints("split")
    if sizes is None:
        each = -(-data.shape[axis] // count)
        sizes = [each] * count
    return np.split(data, np.cumsum(sizes)[:-1], axis)


def _expand(node: ir.Node, inputs: Inputs, opset: int) -> Array:
    data = _data(inputs)
    shape = np.broadcast_shapes(data.shape, tuple(_ints(_need(inputs, 1))))
    return np.broadcast_to(data, shape)


def _tile(node: ir.Node, inputs: Inputs, opset: int) -> Array:
    return np.tile(_data(inputs), _ints(_need(inputs, 1)))


def _pad(node: ir.Node, inputs: Inputs, opset: int) -> Array | None:
    data = _data(inputs)
    if opset < 11 or node.attributes.get_string("mode", "constant") != "constant":
        return None
    pads, axes = _ints(_need(inputs, 1)), inputs[3] if len(inputs) > 3 else None
    where = range(data.ndim) if axes is None else _ints(axes)
    if min(pads, default=0) < 0:
        return None
    widths = [(0, 0)] * data.ndim
    for index, axis in enumerate(where):
        widths[axis] = (pads[index], pads[index + len(where)])
    fill = inputs[2] if len(inputs) > 2 else None
    value = np.zeros((), data.dtype) if fill is None else fill.reshape(())
    sizes = [size + sum(both) for size, both in zip(data.shape, widths, strict=True)]
    padded = np.full(sizes, value)
    inside = [slice(a, a + size) for size, (a, _) in zip(data.shape, widths, strict=True)]
    padded[tuple(inside)] = data
    return padded


def _where(node: ir.Node, inputs: Inputs, opset: int) -> Array:
    return np.where(*(_need(inputs, index) for index in range(3)))


def _constant_of_shape(node: ir.Node, inputs: Inputs, opset: int) -> Array:
    attribute = node.attributes.get("value")
    fill = np.zeros(1, np.float32) if attribute is None else attribute.as_tensor().numpy()
    return np.full(_ints(_data(inputs)), fill.reshape(()))


def _shape(node: ir.Node, inputs: Inputs, opset: int) -> Array:
    shape = _data(inputs).shape
    start = node.attributes.get_int("start", 0)
    end = node.attributes.get_int("end", len(shape))
    return np.array(shape[start:end], np.int64)


def _size(node: ir.Node, inputs: Inputs, opset: int) -> Array:
    return np.array(_data(inputs).size, np.int64)


def _non_zero(node: ir.Node, inputs: Inputs, opset: int) -> Array | None:
    data = _data(inputs)
    return np.array(np.nonzero(data), np.int64) if data.ndim else None


def _trilu(node: ir.Node, inputs: Inputs, opset: int) -> Array:
    offset = inputs[1] if len(inputs) > 1 else None
    k = 0 if offset is None else int(offset.reshape(()))
    keep = np.triu if node.attributes.get_int("upper", 1) else np.tril
    return keep(_data(inputs), k)


def _clip(node: ir.Node, inputs: Inputs, opset: int) -> Array | None:
    data = _data(inputs)
    low, high = [*inputs[1:3], None, None][:2]
    if opset < 11:
        bounds = node.attributes.get_float("min"), node.attributes.get_float("max")
        low, high = (None if b is None else np.asarray(b, data.dtype) for b in bounds)
    if any(a is not None and is_float(a) and np.isnan(a).any() for a in (data, low, high)):
        return None
    data = data if low is None else np.maximum(data, low)
    return data if high is None else np.minimum(data, high)


def _cast(node: ir.Node, inputs: Inputs, opset: int) -> Array | None:
    source = ir.tensor(_data(inputs))
    target = ir.DataType(node.attributes.get_int("to", 0))
    saturate = bool(node.attributes.get_int("saturate", 1))
    try:
        return cast(as_weight(source), target, saturate=saturate).numpy()
    except ModelError:
        return None  # strings, and numbers that the target type has no defined value for


MOVES: dict[str, Callable[[ir.Node, Inputs, int], Array | list[Array] | None]] = {
    "Identity": _identity,
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Transpose": _transpose,
    "Concat": _concat,
    "Slice": _slice,
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "Split": _split,
    "Expand": _expand,
    "Tile": _tile,
    "Pad": _pad,
    "Where": _where,
    "ConstantOfShape": _constant_of_shape,
    "Shape": _shape,
    "Size": _size,
    "NonZero": _non_zero,
    "Trilu": _trilu,
    "Clip": _clip,
    "Cast": _cast,
}
