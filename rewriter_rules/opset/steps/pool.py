"""Pooling: windows beyond the border, dilation, indices; and the layouts of recurrent layers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import onnx_ir as ir

from vlmpass.ir_tools.graph.tape import Tape
from vlmpass.rewriter_rules.opset.build import cast, scalar, sizes_of, vector, without
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
    pads = _windows(node)[3]
    reaching = [*pads[: len(pads) // 2], *_ends(node)]
    if not integer(node, "count_include_pad"):
        return again(op, node, drop=("ceil_mode",), pads=reaching)
    return _counting(op, node, [*map(min, pads, reaching)], reaching)


def _ends(node: ir.Node) -> Iterator[int]:
    """Yield the pads to the end of the last window that starts inside, axis by axis."""
    sizes = static(operand(node, 0))[2:]
    kernel, strides, dilations, pads = _windows(node)
    for axis, size in enumerate(sizes):
        reach = dilations[axis] * (kernel[axis] - 1) + 1
        start, end = pads[axis], pads[axis + len(sizes)]
        count = -(-(size + start + end - reach) // strides[axis]) + 1
        if (count - 1) * strides[axis] >= size + start:
            count -= 1
        yield max(0, (count - 1) * strides[axis] + reach - size - start)


def _counting(op: Tape, node: ir.Node, counted: list[int], whole: list[int]) -> Outputs:
    """Record the mean with some of the padding counting, made part of x, and the rest not."""
    half = len(counted) // 2
    pads = vector(op, [0, 0, *counted[:half], 0, 0, *counted[half:]])
    padded = op.Pad(operand(node, 0), pads) if any(counted) else node.inputs[0]
    free = [all_ - part for all_, part in zip(whole, counted, strict=True)]
    return again(op, node, [padded], drop=("ceil_mode", "count_include_pad"), pads=free)


_ROUNDING = ("dilations", "ceil_mode")
"""Attributes of windows that opset 10 brought, and opset 18 to LpPool."""


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
    if _dilated(node):
        raise CannotConvert("its dilations do not exist before opset 10", HIGHER)
    if not _rounds_up(node):
        return without(op, node, *_ROUNDING)
    if used(node, 1):
        raise CannotConvert("its ceil_mode changes its indices before opset 10", HIGHER)
    counts = integer(node, "count_include_pad")
    return _longer_counting(op, node) if counts else _longer(op, node)


def _dilated(node: ir.Node) -> bool:
    return any(each != 1 for each in integers(node, "dilations") or ())


def _rounds_up(node: ir.Node) -> bool:
    """Whether ceil_mode decides how many windows there are, as auto_pad does not."""
    return bool(integer(node, "ceil_mode")) and not _same(node)


def _longer(op: Tape, node: ir.Node) -> Outputs:
    """Record the node with longer pads in place of ceil_mode."""
    return again(op, node, drop=_ROUNDING, pads=_longer_pads(node, _windows(node)[3]))


def _longer_counting(op: Tape, node: ir.Node) -> Outputs:
    """Record it with the padding that counts made part of x, and what ceil_mode adds not."""
    given = _windows(node)[3]
    half = len(given) // 2
    x = op.Pad(operand(node, 0), pads=[0, 0, *given[:half], 0, 0, *given[half:]])
    free = _longer_pads(node, (0,) * len(given))
    return again(op, node, [x], drop=(*_ROUNDING, "count_include_pad"), pads=free)


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
    x, of_powers = operand(node, 0), node.op_type == "LpPool"
    if not _dilated(node):
        return _undilated(op, node) if of_powers else without(op, node, "dilations")
    planes, space = _planes(op, x, rank(x) - 2)
    pooled = _power_mean(op, node, planes) if of_powers else _mean(op, node, planes, space)
    return _unfolded(op, cast(op, pooled, dtype(x)), x)


def _undilated(op: Tape, node: ir.Node) -> Outputs:
    """Record an LpPool of plain windows as opset 11 has it, without ceil_mode."""
    return _longer(op, node) if _rounds_up(node) else without(op, node, *_ROUNDING)


def _unfolded(op: Tape, planes: ir.Value, x: ir.Value) -> ir.Value:
    """Record planes of one channel as the channels that x has."""
    lead = sizes_of(op, x, 0, 2)
    return op.Reshape(planes, op.Concat(lead, sizes_of(op, planes, 2, rank(x)), axis=0))


def _planes(op: Tape, x: ir.Value, count: int) -> tuple[ir.Value, ir.Value]:
    """Record each channel as an image of one channel, and the size of one."""
    space = sizes_of(op, x, 2, count + 2)
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
    if not _rounds_up(node):
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
        return without(op, node, "layout")
    inputs = list(node.inputs)
    for index, value in enumerate(node.inputs):
        if index in (0, 5, 6) and value is not None:
            inputs[index] = op.Transpose(value, perm=[1, 0, 2])
    found = again(op, node, inputs, drop=("layout",))
    moved = [op.Transpose(found[0], perm=[2, 0, 1, 3]) if used(node, 0) else None]
    return moved + [op.Transpose(state, perm=[1, 0, 2]) for state in found[1:]]
