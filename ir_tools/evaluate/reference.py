"""The reference evaluator of onnx for operators that are rare among constants and exact."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator

from vlmpass.ir_tools.evaluate.arithmetic import Array, is_float

__all__ = ["REFERENCE", "by_reference"]


def by_reference(node: ir.Node, inputs: list[Array], opset: int) -> list[Array] | None:
    """Return the outputs of a node without absent inputs; None where runtimes may differ.

    Args:
        node: An operator of the default domain; its names do not matter.
        inputs: One array for each of its inputs.
        opset: The version imported.
    """
    guard = _GUARDS.get(node.op_type)
    if guard is not None and not guard(node, inputs, opset):
        return None
    names = [f"x{index}" for index in range(len(inputs))]
    alone = ir.Node(
        "",
        node.op_type,
        [ir.Value(name=name) for name in names],
        list(node.attributes.values()),
        outputs=[ir.Value(name=f"y{index}") for index in range(len(node.outputs))],
    )
    evaluator = ReferenceEvaluator(ir.to_proto(alone), opsets={"": opset})
    try:
        return list(evaluator.run(None, dict(zip(names, inputs, strict=True))))
    except RuntimeError:  # a shape that the operator does not take
        return None


def _one_hot(node: ir.Node, inputs: list[Array], opset: int) -> bool:
    """The reference computes `off + hit * (on - off)`, ONNX Runtime chooses one of the two."""
    indices, depth, values = inputs
    if not indices.ndim or depth.ndim > 1 or depth.item() <= 0 or float(depth.item()) % 1:
        return False
    if not is_float(values):
        return opset >= 11 or not (indices < 0).any()
    whole = np.isfinite(values).all() and (np.abs(values) <= 64).all() and not (values % 1).any()
    return bool(whole and not (np.signbit(values) & (values == 0)).any())


def _compress(node: ir.Node, inputs: list[Array], opset: int) -> bool:
    data, condition = inputs
    axis = node.attributes.get("axis")
    size = data.size if axis is None else data.shape[axis.as_int()]
    return bool(data.size and condition.ndim == 1 and len(condition) <= size)


def _distinct(places: Array) -> bool:
    return len(np.unique(places, axis=0)) == len(places)


def _scatter_nd(node: ir.Node, inputs: list[Array], opset: int) -> bool:
    """Which of several updates of one element holds is not defined."""
    data, indices, updates = inputs
    if node.attributes.get_string("reduction", "none") != "none" or not indices.ndim:
        return False
    length = indices.shape[-1]
    if updates.shape != indices.shape[:-1] + data.shape[length:]:
        return False
    sizes = np.array(data.shape[:length], np.int64)
    if ((indices < -sizes) | (indices >= sizes)).any():
        return False
    return _distinct((indices % np.maximum(sizes, 1)).reshape(-1, length))


def _scatter_elements(node: ir.Node, inputs: list[Array], opset: int) -> bool:
    data, indices, updates = inputs
    if node.attributes.get_string("reduction", "none") != "none":
        return False
    if updates.shape != indices.shape or indices.ndim != data.ndim or not data.ndim:
        return False
    axis = range(data.ndim)[node.attributes.get_int("axis", 0)]
    size = data.shape[axis]
    if any(a > b for a, b in zip(indices.shape, data.shape, strict=True)):
        return False
    if ((indices < -size) | (indices >= size)).any():
        return False
    places = np.indices(indices.shape).reshape(indices.ndim, -1)
    places[axis] = (indices % max(size, 1)).reshape(-1)
    return _distinct(places.T)


def _blocks(node: ir.Node, inputs: list[Array], opset: int) -> bool:
    block = node.attributes.get_int("blocksize", 0)
    shape = inputs[0].shape
    if len(shape) != 4 or block < 1:
        return False
    deep = node.op_type == "DepthToSpace"
    return shape[1] % block**2 == 0 if deep else not (shape[2] % block or shape[3] % block)


_GUARDS: dict[str, Callable[[ir.Node, list[Array], int], bool]] = {
    "Compress": _compress,
    "DepthToSpace": _blocks,
    "EyeLike": lambda node, inputs, opset: inputs[0].ndim == 2,
    "OneHot": _one_hot,
    "ScatterElements": _scatter_elements,
    "ScatterND": _scatter_nd,
    "SpaceToDepth": _blocks,
}
REFERENCE = frozenset({*_GUARDS, "GatherND"})
