"""Generators of cases for the operators that move, choose or make elements."""

from __future__ import annotations

import math

import numpy as np
from onnx import numpy_helper

from tests.evaluate.differential.cases import Generator
from tests.evaluate.differential.draw import Case, Draw, element_type

__all__ = ["GENERATORS"]

FOREVER = 2**63 - 1


def _data(draw: Draw, op_type: str, opset: int, low: int = 0, index: int = 0) -> np.ndarray:
    return draw.array(draw.shape(low), draw.dtype(draw.formals(op_type, opset)[index]))


def reshape(draw: Draw, op_type: str) -> Case:
    opset = draw.opset(op_type)
    data = _data(draw, op_type, opset)
    target = [int(size) for size in draw.rng.permutation(data.shape)]
    if draw.chance(0.5):
        target = [math.prod(target[:2]), *target[2:]]
    if draw.chance(0.5):
        target.insert(draw.integer(0, len(target)), 1)
    for index in range(len(target)):
        if draw.chance(0.15):
            target[index] = 0
    if target and draw.chance(0.5):
        target[draw.integer(0, len(target) - 1)] = -1
    attributes = {"allowzero": 1} if opset >= 14 and draw.chance(0.3) else {}
    return Case(op_type, opset, [data, np.array(target, np.int64)], {**attributes})


def flatten(draw: Draw, op_type: str) -> Case:
    opset = draw.opset(op_type)
    data = _data(draw, op_type, opset)
    axis = draw.integer(-data.ndim, data.ndim)
    return Case(op_type, opset, [data], {"axis": axis} if draw.chance(0.8) else {})


def squeeze(draw: Draw, op_type: str) -> Case:
    opset = draw.opset(op_type)
    shape = tuple(1 if draw.chance(0.5) else size for size in draw.shape())
    data = draw.array(shape, draw.dtype(draw.formals(op_type, opset)[0]))
    ones = [axis for axis, size in enumerate(shape) if size == 1 and draw.chance(0.8)]
    axes = [axis - len(shape) if draw.chance(0.3) else axis for axis in ones]
    if draw.chance(0.25):
        return Case(op_type, opset, [data])
    if opset < 13:
        return Case(op_type, opset, [data], {"axes": axes} if axes else {})
    return Case(op_type, opset, [data, np.array(axes, np.int64)])


def unsqueeze(draw: Draw, op_type: str) -> Case:
    opset = draw.opset(op_type)
    data = _data(draw, op_type, opset)
    count = draw.integer(0, 3)
    axes = [int(axis) for axis in draw.rng.permutation(data.ndim + count)[:count]]
    axes = [axis - data.ndim - count if draw.chance(0.3) else axis for axis in axes]
    if len(axes) > 1 and draw.chance(0.05):
        axes[0] = axes[1]
    if opset < 13:
        return Case(op_type, opset, [data], {"axes": axes or [0]})
    return Case(op_type, opset, [data, np.array(axes, np.int64)])


def transpose(draw: Draw, op_type: str) -> Case:
    opset = draw.opset(op_type)
    data = _data(draw, op_type, opset)
    perm = [int(axis) for axis in draw.rng.permutation(data.ndim)]
    return Case(op_type, opset, [data], {"perm": perm} if perm and draw.chance(0.7) else {})


def concat(draw: Draw, op_type: str) -> Case:
    opset = draw.opset(op_type)
    shape, dtype = draw.shape(1), draw.dtype(draw.formals(op_type, opset)[0])
    axis = draw.axis(len(shape))
    parts = []
    for _ in range(draw.integer(1, 4)):
        sizes = list(shape)
        sizes[axis] = draw.size()
        parts.append(draw.array(tuple(sizes), dtype))
    return Case(op_type, opset, [*parts], {"axis": axis})


def slice_(draw: Draw, op_type: str) -> Case:
    opset = draw.opset(op_type)
    data = _data(draw, op_type, opset, low=1)
    axes = draw.axes(data.ndim)
    if draw.chance(0.3):
        axes = list(range(len(axes)))

    def bound() -> int:
        return (
            draw.among([FOREVER, -FOREVER - 1, 2**31 - 1])
            if draw.chance(0.15)
            else draw.integer(-6, 6)
        )

    starts, ends = [bound() for _ in axes], [bound() for _ in axes]
    if opset < 10:
        plain = axes == list(range(len(axes))) and draw.chance(0.5)
        given = {"starts": starts, "ends": ends}
        return Case(op_type, opset, [data], {**given, **({} if plain else {"axes": axes})})
    kind = draw.among([np.int64, np.int32])
    low, high = np.iinfo(kind).min, np.iinfo(kind).max
    rows: list[np.ndarray | None] = [np.clip(row, low, high).astype(kind) for row in (starts, ends)]
    named = axes != list(range(len(axes))) or draw.chance(0.5)
    rows.append(np.array(axes, kind) if named else None)
    if draw.chance(0.6):
        rows.append(np.array([draw.among([1, 1, 2, -1, -1, -2, 3]) for _ in axes], kind))
    while rows[-1] is None:
        rows.pop()
    return Case(op_type, opset, [data, *rows])


def gather(draw: Draw, op_type: str) -> Case:
    opset = draw.opset(op_type)
    data = _data(draw, op_type, opset, low=1)
    axis = draw.axis(data.ndim)
    size = data.shape[axis]
    reach = size + draw.chance(0.05)
    indices = draw.ints(-reach, max(reach - 1, -reach), draw.shape(0, 2))
    kind = draw.among([np.int64, np.int32])
    return Case(op_type, opset, [data, indices.astype(kind)], {"axis": axis})


def gather_elements(draw: Draw, op_type: str) -> Case:
    opset = draw.opset(op_type)
    data = _data(draw, op_type, opset, low=1)
    axis = draw.axis(data.ndim)
    shape = [draw.integer(1, max(size, 1)) if draw.chance(0.4) else size for size in data.shape]
    shape[axis] = draw.size()
    size = data.shape[axis]
    indices = draw.ints(-size, max(size - 1, -size), tuple(shape))
    return Case(op_type, opset, [data, indices], {"axis": axis})


def split(draw: Draw, op_type: str) -> Case:
    opset = draw.opset(op_type)
    data = _data(draw, op_type, opset, low=1)
    axis, count = draw.axis(data.ndim), draw.integer(1, 3)
    size = data.shape[axis]
    attributes: dict[str, object] = {"axis": axis} if draw.chance(0.9) else {}
    size = size if attributes else data.shape[0]
    inputs: list[np.ndarray | None] = [data]
    cuts = sorted(draw.integer(0, size) for _ in range(count - 1))
    sizes = [int(n) for n in np.diff([0, *cuts, size])]
    if draw.chance(0.05):
        sizes[0] += 1
    if draw.chance(0.6):
        if opset < 13:
            attributes["split"] = sizes
        else:
            inputs.append(np.array(sizes, np.int64))
    elif opset >= 18:
        attributes["num_outputs"] = count
    return Case(op_type, opset, inputs, attributes, outputs=count)


def expand(draw: Draw, op_type: str) -> Case:
    opset = draw.opset(op_type)
    whole = draw.shape()
    data = draw.array(draw.narrowed(whole), draw.dtype(draw.formals(op_type, opset)[0]))
    return Case(op_type, opset, [data, np.array(draw.narrowed(whole), np.int64)])


def tile(draw: Draw, op_type: str) -> Case:
    opset = draw.opset(op_type)
    data = _data(draw, op_type, opset)
    repeats = draw.ints(0 if draw.chance(0.2) else 1, 3, data.ndim + draw.chance(0.03))
    return Case(op_type, opset, [data, repeats])


def pad(draw: Draw, op_type: str) -> Case:
    opset = draw.opset(op_type)
    data = _data(draw, op_type, opset)
    mode = draw.among(["constant", "constant", "constant", "reflect", "edge"])
    attributes: dict[str, object] = {} if draw.chance(0.3) else {"mode": mode}
    axes = draw.axes(data.ndim) if opset >= 18 and draw.chance(0.4) else None
    count = data.ndim if axes is None else len(axes)
    pads = draw.ints(-1 if draw.chance(0.2) else 0, 2, 2 * count)
    if opset < 11:
        return Case(op_type, opset, [data], {**attributes, "pads": pads.tolist()})
    fill = draw.array((), element_type(data)) if draw.chance(0.5) else None
    inputs = [data, pads, fill, None if axes is None else np.array(axes, np.int64)]
    while inputs[-1] is None:
        inputs.pop()
    return Case(op_type, opset, inputs, attributes)


def constant_of_shape(draw: Draw, op_type: str) -> Case:
    opset = draw.opset(op_type)
    shape = np.array(draw.shape(), np.int64)
    kind = draw.among([np.float32, np.int64, np.bool_, np.float16, np.int8, np.float64])
    fill = numpy_helper.from_array(np.array([draw.integer(0, 1)], kind))
    return Case(op_type, opset, [shape], {"value": fill} if draw.chance(0.7) else {})


def shape_of(draw: Draw, op_type: str) -> Case:
    opset = draw.opset(op_type)
    data = _data(draw, op_type, opset)
    reach = 6 if draw.chance(0.1) else data.ndim
    bounds = {name: draw.integer(-reach, reach) for name in ("start", "end") if draw.chance(0.5)}
    return Case(op_type, opset, [data], {**bounds} if opset >= 15 else {})


def trilu(draw: Draw, op_type: str) -> Case:
    opset = draw.opset(op_type)
    data = _data(draw, op_type, opset, low=2 if draw.chance(0.95) else 0)
    inputs: list[np.ndarray | None] = [data]
    if draw.chance(0.6):
        inputs.append(np.array(draw.integer(-6, 6), np.int64))
    return Case(op_type, opset, inputs, {"upper": draw.integer(0, 1)} if draw.chance(0.7) else {})


GENERATORS: dict[str, Generator] = {
    "Reshape": reshape,
    "Flatten": flatten,
    "Squeeze": squeeze,
    "Unsqueeze": unsqueeze,
    "Transpose": transpose,
    "Concat": concat,
    "Slice": slice_,
    "Gather": gather,
    "GatherElements": gather_elements,
    "Split": split,
    "Expand": expand,
    "Tile": tile,
    "Pad": pad,
    "ConstantOfShape": constant_of_shape,
    "Shape": shape_of,
    "Trilu": trilu,
}
