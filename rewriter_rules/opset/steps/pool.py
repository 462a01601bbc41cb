"""Pooling: windows beyond the border, dilation, indices; and the layouts of recurrent layers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from vlmpass.ir_tools.graph.tape import Tape
from vlmpass.rewriter_rules.opset.build import scalar, vector
from vlmpass.rewriter_rules.opset.queries import (
    again,
    dims,
    dtype,
    integer,
    integers,
    operand,
    rank,
    static,
    text,
    used,
)
from vlmpass.rewriter_rules.opset.table import HIGHER, UNCHANGED, CannotConvert, Outputs, adapter

__all__: list[str] = []

_D = ir.DataType
STATIC = "fix the input shapes, or choose opset {opset} or higher"


@adapter("AveragePool", 19, 22, asks=True)
@adapter("MaxPool", 12, 22, asks=True)
def windows_beyond_the_border(op: Tape, node: ir.Node) -> Outputs:
    """Op(x, ceil_mode=1) stays, when no window starts in the padding at the end."""
    if not _windows_stay_inside(node):
        raise CannotConvert(
            "with ceil_mode its last window may start in the padding, which counts before opset 22"
            " and not from there on",
            "fix the input shapes, or change pads so that the last window starts inside",
        )
    return UNCHANGED


@adapter("AveragePool", 22, 19)
@adapter("MaxPool", 22, 12)
def windows_within_the_border(op: Tape, node: ir.Node) -> Outputs:
    """Op(x, ceil_mode=1) -> Op(x, pads to the end of the last window that starts inside)."""
    if _windows_stay_inside(node):
        return UNCHANGED
    sizes = static(operand(node, 0))[2:]
    kernel, strides, dilations, pads = _windows(node)
    ends: list[int] = []
    for axis, size in enumerate(sizes):
        reach = dilations[axis] * (kernel[axis] - 1) + 1
        start, end = pads[axis], pads[axis + len(sizes)]
        count = -(-(size + start + end - reach) // strides[axis]) + 1
        if (count - 1) * strides[axis] >= size + start:
            count -= 1
        ends.append(max(0, (count - 1) * strides[axis] + reach - size - start))
    reaching = [*pads[: len(sizes)], *ends]
    if not integer(node, "count_include_pad"):
        return again(op, node, drop=("ceil_mode",), pads=reaching)
    given = [*pads[: len(sizes)], *map(min, pads[len(sizes) :], ends)]
    return _counting(
        op, node, given, [whole - part for whole, part in zip(reaching, given, strict=True)]
    )


def _counting(op: Tape, node: ir.Node, counted: list[int], free: list[int]) -> Outputs:
    """Record the mean with some padding that counts, made part of x, and some that does not."""
    half = len(counted) // 2
    pads = vector(op, [0, 0, *counted[:half], 0, 0, *counted[half:]])
    padded = op.Pad(operand(node, 0), pads) if any(counted) else node.inputs[0]
    return again(op, node, [padded], drop=("ceil_mode", "count_include_pad"), pads=free)


def _windows(node: ir.Node) -> tuple[tuple[int, ...], ...]:
    """Return kernel, strides, dilations and pads, with their defaults."""
    kernel = integers(node, "kernel_shape") or ()
    ones = (1,) * len(kernel)
    strides, dilations = (integers(node, name) or ones for name in ("strides", "dilations"))
    return kernel, strides, dilations, integers(node, "pads") or (0,) * 2 * len(kernel)


def _explicit(node: ir.Node) -> tuple[int, ...]:
    """Return the pads of a node, where auto_pad stands for them too.

    Refuses where they depend on sizes that are not static.
    """
    kind = text(node, "auto_pad", "NOTSET")
    kernel, strides, dilations, given = _windows(node)
    if kind not in ("SAME_UPPER", "SAME_LOWER"):
        return given if kind == "NOTSET" else (0,) * 2 * len(kernel)
    sizes = (dims(operand(node, 0)) or [None] * (len(kernel) + 2))[2:]
    first, last = [], []
    for size, window, stride, dilation in zip(sizes, kernel, strides, dilations, strict=True):
        # With a stride of 1 every size needs the same.
        if size is None and stride != 1:
            raise CannotConvert(
                f"its {kind} needs pads that depend on sizes that are not static", STATIC
            )
        whole = size or 1
        total = max(0, (-(-whole // stride) - 1) * stride + dilation * (window - 1) + 1 - whole)
        half = total // 2 if kind == "SAME_UPPER" else total - total // 2
        first.append(half)
        last.append(total - half)
    return (*first, *last)


def _windows_stay_inside(node: ir.Node) -> bool:
    if not integer(node, "ceil_mode") or text(node, "auto_pad", "NOTSET") != "NOTSET":
        return True
    kernel, strides, dilations, pads = _windows(node)
    count = len(kernel)
    sizes = (dims(operand(node, 0)) or [None] * (count + 2))[2:]
    return all(
        _stays_inside(
            sizes[axis],
            dilations[axis] * (kernel[axis] - 1) + 1,
            strides[axis],
            pads[axis],
            pads[axis + count],
        )
        for axis in range(count)
    )


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
    """Op(x, ceil_mode=1) -> Op(x, pads with stride - 1 more at each end)."""
    if any(each != 1 for each in integers(node, "dilations") or ()):
        raise CannotConvert(
            "its dilations do not exist before opset 10", "choose opset 10 or higher"
        )
    if not integer(node, "ceil_mode") or _same(node):
        dropped = [name for name in ("ceil_mode", "dilations") if name in node.attributes]
        return again(op, node, drop=dropped) if dropped else UNCHANGED
    if used(node, 1):
        raise CannotConvert(
            "its ceil_mode changes its indices before opset 10", "choose opset 10 or higher"
        )
    rounding, given = ("ceil_mode", "dilations"), _windows(node)[3]
    if not integer(node, "count_include_pad"):
        return again(op, node, drop=rounding, pads=_longer_pads(node, given))
    half = len(given) // 2
    x = op.Pad(operand(node, 0), pads=[0, 0, *given[:half], 0, 0, *given[half:]])
    free = _longer_pads(node, (0,) * len(given))
    return again(op, node, [x], drop=(*rounding, "count_include_pad"), pads=free)


def _longer_pads(node: ir.Node, given: Sequence[int]) -> list[int]:
    """Return longer pads than given, with which rounding down gives what rounding up gave."""
    if text(node, "auto_pad", "NOTSET") != "NOTSET":
        raise CannotConvert("its auto_pad and ceil_mode cannot be spelled together", HIGHER)
    kernel, strides, _, _ = _windows(node)
    count, pads = len(kernel), list(given)
    for axis in range(count):
        pads[count + axis] += strides[axis] - 1
        if pads[count + axis] >= kernel[axis]:
            raise CannotConvert("its ceil_mode would need pads as long as the window", HIGHER)
    return pads


@adapter("AveragePool", 19, 11)
@adapter("LpPool", 18, 11)
def dilated_windows(op: Tape, node: ir.Node) -> Outputs:
    """Op(x, dilations=d) -> Conv of x or its powers with a window of ones, then mean or root."""
    power_mean = node.op_type == "LpPool"
    if all(each == 1 for each in integers(node, "dilations") or ()):
        if power_mean and integer(node, "ceil_mode") and not _same(node):
            return again(
                op,
                node,
                drop=("ceil_mode", "dilations"),
                pads=_longer_pads(node, _windows(node)[3]),
            )
        new = ("dilations", "ceil_mode") if power_mean else ("dilations",)
        dropped = [name for name in new if name in node.attributes]
        return again(op, node, drop=dropped) if dropped else UNCHANGED
    x = operand(node, 0)
    count, kind = rank(x) - 2, dtype(x)
    planes, space = _planes(op, x, count)
    pooled = _power_mean(op, node, planes) if power_mean else _mean(op, node, planes, space)
    if pooled.dtype != kind:
        pooled = op.Cast(pooled, to=kind)
    lead = op.Slice(op.Shape(x), vector(op, [0]), vector(op, [2]), vector(op, [0]))
    ends = vector(op, [2]), vector(op, [count + 2]), vector(op, [0])
    return op.Reshape(pooled, op.Concat(lead, op.Slice(op.Shape(pooled), *ends), axis=0))


def _planes(op: Tape, x: ir.Value, count: int) -> tuple[ir.Value, ir.Value]:
    """Record each channel as an image of one channel, and the size of one."""
    space = op.Slice(op.Shape(x), vector(op, [2]), vector(op, [count + 2]), vector(op, [0]))
    wide = x if dtype(x) == _D.DOUBLE else op.Cast(x, to=_D.FLOAT)
    return op.Reshape(wide, op.Concat(vector(op, [-1, 1]), space, axis=0)), space


def _summed(op: Tape, node: ir.Node, planes: ir.Value, pads: Sequence[int]) -> ir.Value:
    kernel, kind = integers(node, "kernel_shape") or (), dtype(planes)
    window = op.const(np.ones([1, 1, *kernel], kind.numpy()), kind)
    kept: dict[str, object] = {name: node.attributes.get(name) for name in _WINDOW}
    kept["pads"] = pads
    return op.node("Conv", [planes, window], kept)[0]


def _power_mean(op: Tape, node: ir.Node, planes: ir.Value) -> ir.Value:
    power = scalar(op, float(integer(node, "p", 2)), dtype(planes))
    pads = _whole_pads(node)
    total = _summed(op, node, op.Pow(op.Abs(planes), power), pads)
    return op.Pow(total, op.Reciprocal(power))


def _mean(op: Tape, node: ir.Node, planes: ir.Value, space: ir.Value) -> ir.Value:
    """Record sums over the number of elements counted: those of x, or of the padding as well."""
    pads = _whole_pads(node)
    total = _summed(op, node, planes, pads)
    given, inner = _explicit(node), pads
    if integer(node, "count_include_pad"):
        half = len(given) // 2
        space = op.Add(
            space, vector(op, [a + b for a, b in zip(given[:half], given[half:], strict=True)])
        )
        inner = [whole - part for whole, part in zip(pads, given, strict=True)]
    ones = op.Expand(scalar(op, 1, dtype(planes)), op.Concat(vector(op, [1, 1]), space, axis=0))
    return op.Div(total, _summed(op, node, ones, inner))


def _same(node: ir.Node) -> bool:
    """Whether auto_pad says how many windows there are, so that ceil_mode does not."""
    return text(node, "auto_pad", "NOTSET").startswith("SAME")


def _whole_pads(node: ir.Node) -> list[int]:
    """Return pads with which a Conv that rounds down reaches all that the node reaches."""
    if not integer(node, "ceil_mode") or _same(node):
        return list(_explicit(node))
    if text(node, "auto_pad", "NOTSET") != "NOTSET":
        raise CannotConvert("its auto_pad and ceil_mode cannot be spelled together", HIGHER)
    kernel, strides, dilations, given = _windows(node)
    count, pads = len(kernel), list(given)
    for axis in range(count):
        reach = dilations[axis] * (kernel[axis] - 1) + 1
        if reach < strides[axis] + pads[count + axis]:
            raise CannotConvert("with ceil_mode its last window may hold nothing", HIGHER)
        pads[count + axis] += strides[axis] - 1
    return pads


_WINDOW = ("dilations", "kernel_shape", "strides")


@adapter("MaxPool", 8, 1)
def without_indices(op: Tape, node: ir.Node) -> Outputs:
    """MaxPool(x) stays, when nothing reads its indices."""
    if used(node, 1):
        raise CannotConvert("its indices do not exist before opset 8", "choose opset 8 or higher")
    return again(op, node, drop=("storage_order",), outputs=1)


@adapter("GRU LSTM RNN", 14, 7)
def sequence_first(op: Tape, node: ir.Node) -> Outputs:
    """Op(x, layout=1) -> Transpose(Op(Transpose(x)))."""
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
