"""Numpy kernels of the operators that move, choose or make elements; all exact for every type."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from vlmpass.ir_tools.errors import ModelError
from vlmpass.ir_tools.evaluate.arithmetic import (
    Array,
    Inputs,
    has_negative_zero,
    is_float,
    ordered,
)
from vlmpass.ir_tools.shapes.slices import slice_of
from vlmpass.ir_tools.weights import as_weight, cast
from vlmpass.ir_tools.weights.casts import saturates

__all__ = ["MOVES"]


def _ints(array: Array) -> list[int]:
    if array.ndim != 1:
        raise ValueError(f"a vector is due, not {array.shape}")
    return [int(item) for item in array]


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


def _reshape(node: ir.Node, inputs: Inputs, opset: int) -> Array | None:
    data = _data(inputs)
    target = _ints(_need(inputs, 1)) if len(inputs) > 1 else node.attributes.get_ints("shape", ())
    zero = node.attributes.get_int("allowzero", 0)
    dims = [data.shape[i] if dim == 0 and not zero else dim for i, dim in enumerate(target)]
    return data.reshape(dims) if min(dims, default=0) >= -1 else None


def _flatten(node: ir.Node, inputs: Inputs, opset: int) -> Array | None:
    data = _data(inputs)
    axis = node.attributes.get_int("axis", 1)
    if not (-data.ndim if opset >= 11 else 0) <= axis <= data.ndim:
        return None
    axis = axis + data.ndim if axis < 0 else axis
    return data.reshape(math.prod(data.shape[:axis]), math.prod(data.shape[axis:]))


def _squeeze(node: ir.Node, inputs: Inputs, opset: int) -> Array | None:
    axes = _axes(node, inputs)
    if axes == []:
        return None  # which ONNX Runtime takes for all axes of size 1, the reference for none
    return np.squeeze(_data(inputs), None if axes is None else tuple(axes))


def _unsqueeze(node: ir.Node, inputs: Inputs, opset: int) -> Array | None:
    axes = _axes(node, inputs)
    if axes is None:
        return None
    if opset < 13 and len(axes) > 1 and (axes != sorted(axes) or axes[0] < 0):
        return None  # the reference inserts them one after the other there
    return np.expand_dims(_data(inputs), tuple(axes))


def _transpose(node: ir.Node, inputs: Inputs, opset: int) -> Array:
    return np.transpose(_data(inputs), node.attributes.get_ints("perm"))


def _concat(node: ir.Node, inputs: Inputs, opset: int) -> Array:
    arrays = [array for array in inputs if array is not None]
    return np.concatenate(arrays, node.attributes.get_int("axis", 1))


def _slice(node: ir.Node, inputs: Inputs, opset: int) -> Array | None:
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
    axes = range(len(starts)) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    if len({axis % max(data.ndim, 1) for axis in axes}) < len(axes):
        return None  # an axis cut twice
    where = [slice(None)] * data.ndim
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        part = slice_of(start, end, step, data.shape[axis])
        if part is None:
            return None
        where[axis] = part
    return data[tuple(where)]


def _gather(node: ir.Node, inputs: Inputs, opset: int) -> Array:
    return np.take(_data(inputs), _need(inputs, 1), node.attributes.get_int("axis", 0))


def _gather_elements(node: ir.Node, inputs: Inputs, opset: int) -> Array | None:
    """Take along an axis; indices never broadcast, along the other axes they may be fewer."""
    data, indices = _data(inputs), _need(inputs, 1)
    if indices.ndim != data.ndim or not data.ndim:
        return None
    axis = range(data.ndim)[node.attributes.get_int("axis", 0)]
    sizes = [slice(None) if at == axis else slice(size) for at, size in enumerate(indices.shape)]
    data = data[tuple(sizes)]
    if any(at != axis and data.shape[at] < size for at, size in enumerate(indices.shape)):
        return None
    where = np.where(indices < 0, indices + data.shape[axis], indices)
    if where.size and (where.min() < 0 or where.max() >= data.shape[axis]):
        return None
    return np.take_along_axis(data, where, axis)


def _split(node: ir.Node, inputs: Inputs, opset: int) -> list[Array] | None:
    data = _data(inputs)
    axis = node.attributes.get_int("axis", 0)
    count, size = len(node.outputs), data.shape[axis]
    given = inputs[1] if len(inputs) > 1 else None
    sizes = _ints(given) if given is not None else node.attributes.get_ints("split")
    if sizes is None:
        each = -(-size // count)
        sizes = [each] * (count - 1) + [size - each * (count - 1)]
        if sizes[-1] < 0 or (opset < 18 and sizes[-1] != each):
            return None
    if len(sizes) != count or min(sizes) < 0 or sum(sizes) != size:
        return None
    return np.split(data, np.cumsum(sizes)[:-1], axis)


def _expand(node: ir.Node, inputs: Inputs, opset: int) -> Array:
    data = _data(inputs)
    shape = np.broadcast_shapes(data.shape, tuple(_ints(_need(inputs, 1))))
    return np.broadcast_to(data, shape)


def _tile(node: ir.Node, inputs: Inputs, opset: int) -> Array | None:
    data, repeats = _data(inputs), _ints(_need(inputs, 1))
    return np.tile(data, repeats) if len(repeats) == data.ndim else None


def _pad(node: ir.Node, inputs: Inputs, opset: int) -> Array | None:
    data = _data(inputs)
    if opset < 11 or node.attributes.get_string("mode", "constant") != "constant":
        return None
    if not data.ndim:
        return None
    pads, axes = _ints(_need(inputs, 1)), inputs[3] if len(inputs) > 3 else None
    where = range(data.ndim) if axes is None else _ints(axes)
    if min(pads, default=0) < 0 or len(pads) != 2 * len(where):
        return None
    if ir.DataType.from_numpy(data.dtype).bitwidth < 8:
        return None  # nobody pads these
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


def _where(node: ir.Node, inputs: Inputs, opset: int) -> Array | None:
    chosen = np.where(*(_need(inputs, index) for index in range(3)))
    return None if has_negative_zero(chosen) else chosen  # ONNX Runtime adds 0 to them


def _constant_of_shape(node: ir.Node, inputs: Inputs, opset: int) -> Array:
    attribute = node.attributes.get("value")
    fill = np.zeros(1, np.float32) if attribute is None else attribute.as_tensor().numpy()
    return np.full(_ints(_data(inputs)), fill.reshape(()))


def _shape(node: ir.Node, inputs: Inputs, opset: int) -> Array | None:
    shape = _data(inputs).shape
    start = node.attributes.get_int("start", 0)
    end = node.attributes.get_int("end", len(shape))
    if max(abs(start), abs(end)) > len(shape):
        return None  # the reference does not clamp these
    return np.array(shape[start:end], np.int64)


def _size(node: ir.Node, inputs: Inputs, opset: int) -> Array:
    return np.array(_data(inputs).size, np.int64)


def _non_zero(node: ir.Node, inputs: Inputs, opset: int) -> Array | None:
    data = _data(inputs)
    return np.array(np.nonzero(data), np.int64) if data.ndim else None


def _trilu(node: ir.Node, inputs: Inputs, opset: int) -> Array | None:
    if _data(inputs).ndim < 2:
        return None
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
    given = [array for array in (data, low, high) if array is not None]
    if any(array.ndim for array in given[1:]) or not ordered(given):
        return None
    if opset < 11 and low is not None and high is not None and low > high:
        return None  # which of them holds is for the runtime to say
    if (low is None or high is None) and data.dtype.kind not in "iu" and np.isinf(data).any():
        return None  # ONNX Runtime clips to the largest finite number where a bound is left out
    data = data if low is None else np.maximum(data, low)
    return data if high is None else np.minimum(data, high)


def _cast(node: ir.Node, inputs: Inputs, opset: int) -> Array | None:
    source = ir.tensor(_data(inputs))
    target = ir.DataType(node.attributes.get_int("to", 0))
    saturate = bool(node.attributes.get_int("saturate", 1))
    if not saturate and saturates(target, saturate):
        return None  # ONNX Runtime refuses it where it makes no difference
    if target == ir.DataType.BOOL and source.dtype.bitwidth < 16 and is_float(_data(inputs)):
        return None  # ONNX Runtime makes false of small numbers
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
