"""Generators of cases for the operators that gather and scatter by indices, and their kin."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from tests.evaluate.differential.cases import Generator
from tests.evaluate.differential.draw import Case, Draw, element_type

__all__ = ["GENERATORS"]


def compress(draw: Draw, op_type: str) -> Case:
    opset = draw.opset(op_type)
    data = draw.array(draw.shape(1), draw.dtype(draw.formals(op_type, opset)[0]))
    attributes = {"axis": draw.axis(data.ndim)} if draw.chance(0.7) else {}
    size = data.shape[attributes["axis"]] if attributes else data.size
    count = max(0, size + draw.among([0, 0, 0, -1, 1]))
    return Case(op_type, opset, [data, draw.array((count,), ir.DataType.BOOL)], {**attributes})


def depth(draw: Draw, op_type: str) -> Case:
    opset = draw.opset(op_type)
    block = draw.integer(1, 3)
    shape = [draw.size() for _ in range(4)]
    if op_type == "DepthToSpace":
        shape[1] *= block**2
    else:
        shape[2:] = [size * block for size in shape[2:]]
    data = draw.array(tuple(shape), draw.dtype(draw.formals(op_type, opset)[0]))
    attributes: dict[str, object] = {"blocksize": block}
    if op_type == "DepthToSpace" and opset >= 11 and draw.chance(0.6):
        attributes["mode"] = draw.among(["DCR", "CRD"])
    return Case(op_type, opset, [data], attributes)


def eye_like(draw: Draw, op_type: str) -> Case:
    opset = draw.opset(op_type)
    formal = draw.formals(op_type, opset)[0]
    data = draw.array(draw.shape(2, 2), draw.dtype(formal))
    attributes: dict[str, object] = {"k": draw.integer(-5, 5)} if draw.chance(0.6) else {}
    if draw.chance(0.5):
        attributes["dtype"] = int(draw.dtype(formal))
    return Case(op_type, opset, [data], attributes)


def gather_nd(draw: Draw, op_type: str) -> Case:
    opset = draw.opset(op_type)
    data = draw.array(draw.shape(1), draw.dtype(draw.formals(op_type, opset)[0]))
    batch = draw.integer(0, data.ndim - 1) if opset >= 12 and draw.chance(0.3) else 0
    length = draw.integer(1, data.ndim - batch)
    lead = (*data.shape[:batch], *draw.shape(0, 1))
    columns = [
        draw.ints(-size, max(size - 1, -size), lead) for size in data.shape[batch : batch + length]
    ]
    attributes = {"batch_dims": batch} if batch else {}
    return Case(op_type, opset, [data, np.stack(columns, -1)], {**attributes})


def one_hot(draw: Draw, op_type: str) -> Case:
    opset = draw.opset(op_type)
    formals = draw.formals(op_type, opset)
    usual = draw.chance(0.7)  # types that ONNX Runtime has kernels for
    count = draw.integer(1 if usual else 0, 5)
    low = 0 if opset < 11 and draw.chance(0.8) else -count - 1
    indices = draw.ints(low, count + 1, draw.shape(1 if usual else 0, 2))
    kind = np.int64 if usual else draw.dtype(formals[0]).numpy()
    with np.errstate(all="ignore"):
        indices = np.abs(indices).astype(kind) if kind == np.bool_ else indices.astype(kind)
    sizes = [np.int64] if usual else [np.int64, np.int32, np.float32]
    depth_of = np.array(count if draw.chance(0.6) else [count], draw.among(sizes))
    common = [ir.DataType.FLOAT, ir.DataType.INT64, ir.DataType.INT32]
    values = draw.array((2,), draw.among(common) if usual else draw.dtype(formals[2]))
    attributes = {"axis": draw.axis(indices.ndim + 1)} if draw.chance(0.7) else {}
    return Case(op_type, opset, [indices, depth_of, values], {**attributes})


def scatter_elements(draw: Draw, op_type: str) -> Case:
    opset = draw.opset(op_type)
    data = draw.array(draw.shape(1), draw.dtype(draw.formals(op_type, opset)[0]))
    axis = draw.axis(data.ndim)
    shape = [draw.integer(0, size) if draw.chance(0.4) else size for size in data.shape]
    size = data.shape[axis]
    if draw.chance(0.6):  # no index twice
        order = np.argsort(draw.rng.random(data.shape), axis)
        indices = order[tuple(slice(0, count) for count in shape)].astype(np.int64)
    else:
        indices = draw.ints(-size, max(size - 1, -size), tuple(shape))
    updates = draw.array(indices.shape, element_type(data))
    attributes: dict[str, object] = {"axis": axis}
    if opset >= 16 and draw.chance(0.2):
        attributes["reduction"] = draw.among(["none", "add", "mul"])
    return Case(op_type, opset, [data, indices, updates], attributes)


def scatter_nd(draw: Draw, op_type: str) -> Case:
    opset = draw.opset(op_type)
    data = draw.array(draw.shape(1), draw.dtype(draw.formals(op_type, opset)[0]))
    length = draw.integer(1, data.ndim)
    places = math.prod(data.shape[:length])
    count = draw.integer(0, min(places, 4))
    if draw.chance(0.7):
        flat = draw.rng.permutation(places)[:count]
    else:
        flat = draw.ints(0, max(places - 1, 0), count if places else 0)
    rows = np.stack(np.unravel_index(flat, data.shape[:length]) if places else [flat] * length, -1)
    if draw.chance(0.3):
        rows = rows - np.array(data.shape[:length])
    updates = draw.array((len(rows), *data.shape[length:]), element_type(data))
    attributes = (
        {"reduction": draw.among(["none", "add"])} if opset >= 16 and draw.chance(0.2) else {}
    )
    return Case(op_type, opset, [data, rows.astype(np.int64), updates], {**attributes})


GENERATORS: dict[str, Generator] = {
    "Compress": compress,
    "DepthToSpace": depth,
    "SpaceToDepth": depth,
    "EyeLike": eye_like,
    "GatherND": gather_nd,
    "OneHot": one_hot,
    "ScatterElements": scatter_elements,
    "ScatterND": scatter_nd,
}
