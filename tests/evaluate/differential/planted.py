"""Faults put into the folder on purpose; the random cases must find every one of them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from vlmpass.ir_tools import evaluate
from vlmpass.ir_tools.evaluate import arithmetic, moves, reference
from vlmpass.passes.folding import constants, lazy

__all__ = ["PLANTED"]

Plant = Callable[[pytest.MonkeyPatch], None]


def _kernel(op_type: str, compute: Callable[..., object]) -> Plant:
    def plant(patch: pytest.MonkeyPatch) -> None:
        patch.setitem(arithmetic.KERNELS, op_type, lambda node, inputs: compute(node, *inputs))

    return plant


def _move(op_type: str, compute: Callable[..., object]) -> Plant:
    def plant(patch: pytest.MonkeyPatch) -> None:
        def faulty(node, inputs, opset):
            return compute(node, *inputs)

        patch.setitem(moves.MOVES, op_type, faulty)

    return plant


def _let(owner: object, name: str, new: object) -> Plant:
    return lambda patch: patch.setattr(owner, name, new)


def _axis(node, default: int = 0) -> int:
    return node.attributes.get_int("axis", default)


def _python_slice(start, end, step, size):
    return slice(start, end, step)


def _no_guard(op_type: str) -> Plant:
    return lambda patch: patch.delitem(reference._GUARDS, op_type)


def _floats_clipped(node, data, low=None, high=None):
    low = -np.inf if low is None else float(low)
    high = np.inf if high is None else float(high)
    return np.clip(data.astype(np.float64), low, high).astype(data.dtype)


PLANTED: dict[str, tuple[str, Plant]] = {
    "gather-elements broadcasts": (
        "GatherElements",
        _move("GatherElements", lambda node, x, i: np.take_along_axis(x, i, _axis(node))),
    ),
    "slices are Python's": ("Slice", _let(moves, "slice_of", _python_slice)),
    "clip goes by way of floats": ("Clip", _move("Clip", _floats_clipped)),
    "power goes by way of floats": (
        "Pow",
        _kernel("Pow", lambda n, a, b: np.power(a.astype(float), b.astype(float)).astype(a.dtype)),
    ),
    "integer division floors": ("Div", _kernel("Div", lambda n, a, b: a // b)),
    "remainder has the sign of the dividend": (
        "Mod",
        _kernel("Mod", lambda n, a, b: np.fmod(a, b)),
    ),
    "shift beyond the width": ("BitShift", _kernel("BitShift", lambda n, a, b: a << b)),
    "round half up": ("Round", _kernel("Round", lambda n, x: np.floor(x + np.array(0.5, x.dtype)))),
    "exponential in its own type": (
        "Exp",
        _kernel("Exp", lambda n, x: np.exp(x) * np.float32(1.000001)),
    ),
    "relu keeps what zero it meets": ("Relu", _kernel("Relu", lambda n, x: np.maximum(x, 0 * x))),
    "maximum of the ends": ("Max", _kernel("Max", lambda n, *xs: np.maximum(xs[0], xs[-1]))),
    "minimum of zeros": ("Min", _let(arithmetic, "ordered", lambda arrays: True)),
    "sum wraps": ("ReduceSum", _kernel("ReduceSum", lambda n, x, *a: np.sum(x, keepdims=True))),
    "product without keepdims": ("ReduceProd", _kernel("ReduceProd", lambda n, x, *a: np.prod(x))),
    "last of equals": (
        "ArgMax",
        _kernel("ArgMax", lambda n, x: np.expand_dims(np.argmax(x, _axis(n)), _axis(n))),
    ),
    "range counts one too many": (
        "Range",
        _kernel("Range", lambda n, a, b, c: np.arange(a, b + c, c, a.dtype)),
    ),
    "cumulative sum forward": ("CumSum", _kernel("CumSum", lambda n, x, a: np.cumsum(x, int(a)))),
    "types may differ": ("ConstantOfShape", _let(evaluate, "conforms", lambda *a: True)),
    "truth is not whether it is a number": ("IsNaN", _kernel("IsNaN", lambda n, x: x == x)),
    "split in equal parts": (
        "Split",
        _move("Split", lambda n, x, s=None: np.array_split(x, len(n.outputs), _axis(n))),
    ),
    "reshape copies no axis": (
        "Reshape",
        _move("Reshape", lambda n, x, s: x.reshape([size or 1 for size in s])),
    ),
    "flatten from the end": (
        "Flatten",
        _move("Flatten", lambda n, x: x.reshape(int(np.prod(x.shape[: _axis(n, 1)])), -1)),
    ),
    "squeeze of no axes": (
        "Squeeze",
        _move("Squeeze", lambda n, x, a=None: np.squeeze(x, None if a is None else tuple(a))),
    ),
    "unsqueeze in turn": (
        "Unsqueeze",
        _move(
            "Unsqueeze",
            lambda n, x, *a: np.expand_dims(x, tuple(n.attributes.get_ints("axes", ()))),
        ),
    ),
    "where loses nothing": ("Where", _let(moves, "has_negative_zero", lambda x: False)),
    "tile repeats elements": (
        "Tile",
        _move("Tile", lambda n, x, r: np.repeat(x, r[-1], -1) if x.ndim else x),
    ),
    "pad in front of the last axes": (
        "Pad",
        _move("Pad", lambda n, x, p=None, v=None, a=None: np.pad(x, [(1, 1)] * x.ndim)),
    ),
    "shape not clamped": ("Shape", _move("Shape", lambda n, x: np.array(x.shape, np.int64))),
    "scattered twice": ("ScatterND", _no_guard("ScatterND")),
    "one hot by arithmetic": ("OneHot", _no_guard("OneHot")),
    "blocks from the other end": (
        "SpaceToDepth",
        _move(
            "SpaceToDepth",
            lambda n, x: x.reshape(
                x.shape[0], -1, *(s // n.attributes.get_int("blocksize") for s in x.shape[2:])
            ),
        ),
    ),
    "proven though disputed": (
        "ConstantOfShape",
        _let(constants.Constants, "_disputed", lambda self, node: False),
    ),
    "lazy slices are not cut": ("Slice", _let(lazy, "_slice", lambda weight, operands: [weight])),
    "lazy parts are swapped": (
        "Split",
        _let(
            lazy, "_split", lambda w, axis, shapes: [lazy.take(w, axis, 0, s[axis]) for s in shapes]
        ),
    ),
}
"""Each with the operator on whose cases it shows."""
