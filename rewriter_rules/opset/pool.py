"""Pooling: windows beyond the border, dilation, indices; and the layouts of recurrent layers."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from vlmpass.ir_tools.tape import Tape
from vlmpass.rewriter_rules.opset.build import scalar, vector
from vlmpass.rewriter_rules.opset.facts import (
    again,
    dims,
    dtype,
    integer,
    integers,
    operand,
    text,
    used,
)
from vlmpass.rewriter_rules.opset.table import UNCHANGED, Outputs, adapter, refuse

__all__: list[str] = []


@adapter("AveragePool", 19, 22)
@adapter("AveragePool", 22, 19)
@adapter("MaxPool", 12, 22)
@adapter("MaxPool", 22, 12)
def windows_beyond_the_border(op: Tape, node: ir.Node) -> Outputs:
    """Pool(x, ceil_mode=1) stays, when no window starts in the padding at the end."""
    if not integer(node, "ceil_mode") or text(node, "auto_pad", "NOTSET") != "NOTSET":
        return UNCHANGED
    kernel = integers(node, "kernel_shape") or ()
    count = len(kernel)
    strides = integers(node, "strides") or (1,) * count
    dilations = integers(node, "dilations") or (1,) * count
    pads = integers(node, "pads") or (0,) * 2 * count
    sizes = (dims(operand(node, 0)) or [None] * (count + 2))[2:]
    for axis in range(count):
        reach = dilations[axis] * (kernel[axis] - 1) + 1
        if not _stays_inside(sizes[axis], reach, strides[axis], pads[axis], pads[axis + count]):
            refuse(
                "with ceil_mode its last window may start in the padding, which counts before"
                " opset 22 and not from there on",
                "fix the input shapes, or change pads so that the last window starts inside",
            )
    return UNCHANGED


def _stays_inside(size: int | None, reach: int, stride: int, start: int, end: int) -> bool:
    if reach >= stride + end:
        return True
    if size is None:
        return False
    last = -(-(size + start + end - reach) // stride) * stride
    return last < size + start


@adapter("AveragePool", 10, 7)
@adapter("MaxPool", 10, 8)
def plain_windows(op: Tape, node: ir.Node) -> Outputs:
    """Pool(x, ceil_mode=1) -> Pool(x, pads with stride - 1 more at each end)."""
    if any(each != 1 for each in integers(node, "dilations") or ()):
        refuse("its dilations do not exist before opset 10", "choose opset 10 or higher")
    if not integer(node, "ceil_mode"):
        dropped = [name for name in ("ceil_mode", "dilations") if name in node.attributes]
        return again(op, node, drop=dropped) if dropped else UNCHANGED
    if integer(node, "count_include_pad") or used(node, 1):
        refuse("its ceil_mode cannot be spelled by pads that count", "choose opset 10 or higher")
    return again(op, node, drop=("ceil_mode", "dilations"), pads=_longer_pads(node))


def _longer_pads(node: ir.Node) -> list[int]:
    """Return pads with which rounding down gives what rounding up gave."""
    if text(node, "auto_pad", "NOTSET") != "NOTSET":
        refuse("its auto_pad and ceil_mode cannot be spelled together", "choose a higher opset")
    kernel = integers(node, "kernel_shape") or ()
    count = len(kernel)
    strides = integers(node, "strides") or (1,) * count
    pads = list(integers(node, "pads") or (0,) * 2 * count)
    for axis in range(count):
        pads[count + axis] += strides[axis] - 1
        if pads[count + axis] >= kernel[axis]:
            refuse("its ceil_mode would need pads as long as the window", "choose a higher opset")
    return pads


@adapter("AveragePool", 19, 11)
@adapter("LpPool", 18, 11)
def dilated_windows(op: Tape, node: ir.Node) -> Outputs:
    """Pool(x, dilations=d) -> Conv of x with a window of ones, divided by what it counts."""
    if node.op_type == "LpPool" and integer(node, "ceil_mode"):
        (node_output,) = again(op, node, drop=("ceil_mode",), pads=_longer_pads(node))
        return node_output
    dilations = integers(node, "dilations")
    if all(each == 1 for each in dilations or ()):
        dropped = [name for name in ("dilations",) if name in node.attributes]
        if node.op_type == "LpPool" and "ceil_mode" in node.attributes:
            dropped.append("ceil_mode")
        return again(op, node, drop=dropped) if dropped else UNCHANGED
    if integer(node, "ceil_mode"):
        refuse("its dilations and ceil_mode cannot be spelled together", "choose a higher opset")
    x = operand(node, 0)
    kernel = list(integers(node, "kernel_shape") or ())
    count, kind = len(kernel), dtype(x)
    shape = op.Shape(x)
    space = op.Slice(shape, vector(op, [2]), vector(op, [count + 2]), vector(op, [0]))
    planes = op.Reshape(x, op.Concat(vector(op, [-1, 1]), space, axis=0))
    window = op.const(np.ones([1, 1, *kernel], kind.numpy()), kind)
    kept = {name: node.attributes.get(name) for name in _WINDOW}
    if node.op_type == "LpPool":
        power = scalar(op, float(integer(node, "p", 2)), kind)
        summed = op.Conv(op.Pow(op.Abs(planes), power), window, **kept)
        pooled = op.Pow(summed, op.Reciprocal(power))
    elif integer(node, "count_include_pad"):
        total = scalar(op, float(np.prod(kernel)), kind)
        pooled = op.Div(op.Conv(planes, window, **kept), total)
    else:
        ones = op.Expand(scalar(op, 1, kind), op.Concat(vector(op, [1, 1]), space, axis=0))
        pooled = op.Div(op.Conv(planes, window, **kept), op.Conv(ones, window, **kept))
    lead = op.Slice(shape, vector(op, [0]), vector(op, [2]), vector(op, [0]))
    ends = vector(op, [2]), vector(op, [count + 2]), vector(op, [0])
    return op.Reshape(pooled, op.Concat(lead, op.Slice(op.Shape(pooled), *ends), axis=0))


_WINDOW = ("auto_pad", "dilations", "kernel_shape", "pads", "strides")


@adapter("MaxPool", 8, 1)
def without_indices(op: Tape, node: ir.Node) -> Outputs:
    """MaxPool(x) stays, when nothing reads its indices."""
    if used(node, 1):
        refuse("its indices do not exist before opset 8", "choose opset 8 or higher")
    return again(op, node, drop=("storage_order",), outputs=1)


@adapter("GRU LSTM RNN", 14, 7)
def sequence_first(op: Tape, node: ir.Node) -> Outputs:
    """LSTM(x, layout=1) -> Transpose(LSTM(Transpose(x)))."""
    if not integer(node, "layout"):
        return again(op, node, drop=("layout",)) if "layout" in node.attributes else UNCHANGED
    inputs = list(node.inputs)
    for index in (0, 5, 6):
        value = inputs[index] if index < len(inputs) else None
        if value is not None:
            inputs[index] = op.Transpose(value, perm=[1, 0, 2])
    found = again(op, node, inputs, drop=("layout",))
    moved = [op.Transpose(found[0], perm=[2, 0, 1, 3]) if used(node, 0) else None]
    return moved + [op.Transpose(state, perm=[1, 0, 2]) for state in found[1:]]
