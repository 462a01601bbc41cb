"""What random graphs for a rule need to know beyond its pattern."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx_ir as ir

from rules.instances import Draw, Hints

NUMERIC = ("float32", "float16", "float64", "int32", "int64")


def permutation(draw: Draw, rank: int) -> list[int]:
    return [int(axis) for axis in draw.rng.permutation(rank)]


def copies(text: str, low: int = 1, high: int = 4) -> Callable[[Draw], list[ir.Value]]:
    """Return a hint for a variadic capture: several inputs of a type and shape."""

    def make(draw: Draw) -> list[ir.Value]:
        count = int(draw.rng.integers(low, high))
        made = []
        for _ in range(count):
            dtype, shape = draw.typed(text, None)
            made.append(draw.input(shape, dtype))
        return made

    return make


def with_empty(draw: Draw) -> list[ir.Value]:
    """Inputs of a Concat along the first axis, some of them without elements."""
    sizes = [int(draw.choose((0, 1, 2))) for _ in range(4)]  # type: ignore[call-overload]
    return [draw.input((size, draw.dim("b")), draw.dtype) for size in sizes]


def some_axes(name: str, added: int = 0) -> Callable[[Draw], tuple[int, ...]]:
    """Return a hint: distinct axes of a captured value, from either end."""

    def make(draw: Draw) -> tuple[int, ...]:
        rank = len(draw.shape(name)) + added
        count = int(draw.rng.integers(1, min(rank, 2) + 1))
        axes = sorted(int(axis) for axis in draw.rng.choice(rank, count, replace=False))
        return tuple(axis - rank if draw.rng.random() < 0.3 else axis for axis in axes)

    return make


def cuts(name: str) -> Callable[[Draw], tuple[int, ...]]:
    """Return a hint: small bounds of a Slice along two axes."""
    low, high = (0, 3) if name == "starts" else (1, 5)

    def make(draw: Draw) -> tuple[int, ...]:
        return tuple(int(number) for number in draw.rng.integers(low, high, 2))

    return make


def one_start(draw: Draw) -> tuple[int, ...]:
    draw.chosen["start"] = start = int(draw.rng.integers(-3, 3))
    return (start,)


def one_end(draw: Draw) -> tuple[int, ...]:
    """The end of a Slice of one index, whose start is drawn already."""
    start = int(str(draw.chosen["start"]))
    return (2**63 - 1 if start == -1 else start + 1,)


def two_axes(draw: Draw) -> tuple[int, ...]:
    return tuple(int(axis) for axis in draw.rng.choice(3, 2, replace=False))


def regrouped(draw: Draw) -> tuple[int, ...]:
    """A Reshape target for 24 elements, with -1 and 0 now and then."""
    shapes = ((24,), (2, 12), (4, 6), (2, 3, 4), (6, 2, 2))
    target = list(draw.choose(shapes))  # type: ignore[call-overload]
    if draw.rng.random() < 0.5:
        target[int(draw.rng.integers(len(target)))] = -1
    if draw.rng.random() < 0.3:
        target[0] = 0
    return tuple(target)


def lowered(draw: Draw) -> tuple[int, ...]:
    """The axes of size 1 of x."""
    axes = [axis for axis, size in enumerate(draw.shape("x")) if size == 1]
    return tuple(axes)


def conv(draw: Draw) -> Mapping[str, object]:
    return {"pads": [1, 1, 1, 1], "strides": [int(draw.rng.integers(1, 3))] * 2}


def positive(text: str) -> Callable[[Draw], np.ndarray]:
    def make(draw: Draw) -> np.ndarray:
        dtype, shape = draw.typed(text, None)
        return np.abs(draw.array(shape, dtype)) + np.asarray(0.5, dtype)

    return make


def weight(text: str) -> Callable[[Draw], np.ndarray]:
    def make(draw: Draw) -> np.ndarray:
        dtype, shape = draw.typed(text, None)
        return draw.array(shape, dtype)

    return make


def gathers(draw: Draw) -> list[ir.Value]:
    """Elements of one vector or two, taken one or two at a time."""
    vectors = [draw.input((5,), draw.dtype) for _ in range(2)]
    made = []
    for _ in range(int(draw.rng.integers(2, 5))):
        index = draw.constant(draw.rng.integers(-5, 5, int(draw.rng.integers(1, 3))))
        vector = vectors[int(draw.rng.random() < 0.3)]
        made.append(draw.place(ir.Node("", "Gather", [vector, index])))
    return made


def parted(draw: Draw) -> np.ndarray:
    """Sizes of the parts of 4 indices, or one for all of them."""
    return np.array(draw.choose([1, 2, 3, (1, 3), (2, 2)]))


def element_type(draw: Draw) -> dict[str, object]:
    """The type that a sequence is of, as an attribute."""
    return {"dtype": ir.DataType.from_numpy(draw.dtype).value}


def parts(draw: Draw) -> list[ir.Value]:
    """All parts of a Split along some axis."""
    x = draw.input((4, 4), draw.dtype)
    sizes = draw.constant(np.array([1, 3]))
    axis = ir.AttrInt64("axis", int(draw.rng.integers(0, 2)))
    draw.place(ir.Node("", "Split", [x, sizes], [axis], num_outputs=2))
    return list(draw.graph[-1].outputs)


def single(draw: Draw) -> ir.Value:
    """One of the parts of a Split into single columns."""
    x = draw.input((4, 3), draw.dtype)
    sizes = draw.constant(np.array([1, 1, 1]))
    draw.place(ir.Node("", "Split", [x, sizes], [ir.AttrInt64("axis", 1)], num_outputs=3))
    return draw.graph[-1].outputs[int(draw.rng.integers(3))]


def nested(draw: Draw) -> list[ir.Value]:
    """Operands of which some are Concats themselves."""
    made = copies("T[2,2]", 1, 3)(draw)
    inner = copies("T[2,2]", 1, 4)(draw)
    axis = ir.AttrInt64("axis", int(draw.rng.integers(-2, 2)))
    made.append(draw.place(ir.Node("", "Concat", inner, [axis])))
    return made


def more(*arrays: object) -> Callable[[Draw], list[ir.Value]]:
    """Return a hint: one of several constants as the further input of an open pattern."""
    return lambda draw: [draw.constant(np.array(draw.choose(arrays)))]


def conv_weights(draw: Draw) -> list[ir.Value]:
    """Weights for two input channels and three output channels, and a bias now and then."""
    weights = [draw.constant(draw.array((3, 2, 3, 3), draw.dtype))]
    if draw.rng.random() < 0.5:
        weights.append(draw.constant(draw.array((3,), draw.dtype)))
    return weights


HINTS: dict[str, Hints] = {
    "cast-to-same": {"to": lambda draw: ir.DataType.from_numpy(draw.dtype).value},
    "reshape-to-same": {
        "x": "T[2,3,4]",
        "shape": [(2, 3, 4), (0, 0, 0), (0, -1, 4), (2, 3, -1), (-1, 3, 4), (0, -1, 0)],
        "dtypes": NUMERIC,
    },
    "transpose-nowhere": {
        "x": "T[a,b,c]",
        "perm": lambda draw: [[0, 1, 2], [0, 2, 1]][int(draw.rng.integers(4) == 0)],
    },
    "slice-everything": {
        "x": "T[3,2,4]",
        "starts": [(0, 0)],
        "ends": [(9, 9), (2**63 - 1, 4), (3, 2**31 - 1)],
        "axes": [(0, 2), (2, 0), (-3, -1), (1, 2)],
        "steps": [(1, 1)],
    },
    "pad-nothing": {"x": "T[a,b]", "pads": [(0, 0, 0, 0)]},
    "split-in-one": {
        "x": "T[a,b]",
        "split": lambda draw: {"axis": -1, **({"num_outputs": 1} if draw.opset >= 18 else {})},
    },
    "concat-of-empty": {"xs": with_empty, "axis": [0, -2]},
    "expand-to-same": {"x": "T[2,3]", "shape": [(1,), (3,), (2, 3), (1, 3), (2, 1), (4, 2, 3)]},
    "expand-without-effect": {
        "x": "T[2,3]",
        "any": lambda draw: np.array(draw.choose([(1, 3), (3, 1)])),
    },
    "tile-once": {"x": "T[a,b]", "repeats": [(1, 1)]},
    "clip-nothing": {
        "low": [-np.inf],
        "high": [np.inf],
        "x": "T[a,b]",
    },
    "neutral-operand": {"dtypes": NUMERIC},
    "neutral-truth": {"x": "bool[a,b]"},
    "where-either-is-the-same": {"x": "T[a,b]", "any": "T[1]"},
    "flatten-matrix": {"x": "T[a,b]", "axis": [1, -1]},
    "cast-of-cast": {"dtypes": ("float16", "float32", "int32", "uint8")},
    "transpose-of-transpose": {"x": "T[a,b,c]", "dtypes": NUMERIC},
    "reshape-of-reshape": {
        "x": "T[2,3,1,4]",
        "shape": regrouped,
        "Reshape+": more([6, 4], [2, 3, 4], [3, 8]),
        "Squeeze+": more([2]),
        "Unsqueeze+": more([0], [1, 3]),
        "Flatten()": lambda draw: {"axis": 2},
    },
    "squeeze-of-unsqueeze": {
        "x": "T[a,b]",
        "added": some_axes("x", 1),
        "removed": [(0,), (1,), (-1,)],
    },
    "unsqueeze-of-squeeze": {
        "x": "T[a,1,b]",
        "removed": [(1,), (-2,)],
        "added": [(1,), (-2,), (0,)],
    },
    "unsqueeze-of-unsqueeze": {
        "x": "T[a,b]",
        "first": [(0,), (1, 2), (-1,), (2,)],
        "second": [(0,), (1, -1), (-1,), (3,)],
    },
    "squeeze-of-squeeze": {
        "x": "T[1,a,1,b,1]",
        "first": [(0,), (2,), (-1,), (0, 2)],
        "second": [(0,), (-1,), (1,), (2,)],
    },
    "slice-of-slice": {
        "x": "T[5,6,4]",
        **{f"starts{n}": cuts("starts") for n in (1, 2)},
        **{f"ends{n}": cuts("ends") for n in (1, 2)},
        **{f"axes{n}": two_axes for n in (1, 2)},
        **{f"steps{n}": [(1, 1), (1, 1), (1, 2)] for n in (1, 2)},
    },
    "undone": {"x": "T[a]", "dtypes": ("float32", "bool", "int32")},
    "done-twice": {"any": "T[a,b]"},
    "insert-into-empty": {"x": "T[a,b]", "SequenceEmpty()": element_type},
    "insert-at-the-end": {"xs": copies("T[a,b]"), "x": "T[a,b]"},
    "at-of-construct": {"xs": copies("T[a,b]"), "at": [0, 1, -1]},
    "concat-of-construct": {"xs": copies("T[a,b]"), "axis": [0, 1, -1], "new": [0, 1]},
    "at-of-indices": {"x": "T[4,3]", "axis": [0, -1], "at": [0, 2, -1], "keep": [0, 1]},
    "at-of-parts": {"x": "T[4,4]", "axis": [0, -1], "at": [0, 1, -1], "parts": parted},
    "reshape-of-thin-transpose": {
        "x": "T[1,2,1,12]",
        "perm": [[1, 0, 2, 3], [1, 2, 3, 0], [0, 2, 1, 3], [3, 0, 1, 2]],
        "shape": regrouped,
    },
    "shape-of-elementwise": {
        "x": "T[2,3,4]",
        "shape": lambda draw: {"start": 1} if draw.opset >= 15 and draw.rng.random() < 0.5 else {},
        "Cast()": lambda draw: {"to": 7},
        "LayerNormalization+": lambda draw: [draw.constant(draw.array((4,), draw.dtype))],
    },
    "unsqueeze-of-gather": {"v": "T[4]", "i": [0, 1, -1]},
    "concat-of-gathers": {"xs": gathers},
    "gather-of-shape": {
        "x": "T[a,b,c]",
        "indices": [(0,), (0, 1), (1, 2), (-1,), (-2, -1), (0, 2)],
    },
    "slice-of-shape": {
        "x": "T[a,b,c]",
        "start": [(0,), (1,), (-2,)],
        "end": [(2,), (-1,), (2**63 - 1,)],
        "any": "i64[1]",
    },
    "squeeze-of-slice": {
        "x": "T[3,4]",
        "starts": one_start,
        "ends": one_end,
        "axes": [(1,), (-1,)],
        "steps": [(1,)],
        "removed": [(1,), (-1,)],
        "dtypes": NUMERIC,
    },
    "squeeze-of-split": {"part": single, "removed": [(1,), (-1,)], "dtypes": NUMERIC},
    "sum-with-negated": {"dtypes": NUMERIC, "x": "T[a,b]", "y": ["T[a,b]", "T[b]", "T[]"]},
    "matmul-add": {
        "a": "T[a,b]",
        "b": "T[b,c]",
        "c": ["T[c]", "T[a,c]", "T[1,c]", "T[a,1]", "T[]"],
    },
    "gemm-add": {
        "a": "T[a,b]",
        "b": "T[b,c]",
        "c": ["T[c]", "T[a,c]", "T[1,c]", "T[]"],
        "gemm": lambda draw: {"alpha": 0.5} if draw.rng.random() < 0.5 else {},
    },
    "gemm-of-transpose": {
        "a": lambda draw: "T[k,m]",
        "b": lambda draw: "T[k,n]",
        "c": "T[n]",
        "gemm": lambda draw: {
            "transB": int(draw.rng.integers(2)),
            "transA": int(draw.rng.integers(2)),
        },
    },
    "matmul-of-transpose": {"a": ["T[k,m]", "T[m,k]"], "b": ["T[k,n]", "T[n,k]"]},
    "batch-norm-of-conv": {
        "x": "T[1,2,5,5]",
        "dtypes": ("float32",),
        "conv": conv,
        "gain": weight("T[3]"),
        "bias": weight("T[3]"),
        "mean": weight("T[3]"),
        "var": positive("T[3]"),
        "Conv+": conv_weights,
    },
    "scale-of-conv": {
        "x": "T[1,2,5,5]",
        "dtypes": ("float32",),
        "conv": conv,
        "Conv+": conv_weights,
        "k": ["T[3,1,1]", "T[1,3,1,1]", "T[]"],
    },
    "sum-of-conv": {
        "x": "T[1,2,5,5]",
        "w": "T[3,2,3,3]",
        "b": "T[3]",
        "dtypes": ("float32",),
        "conv": conv,
        "k": ["T[3,1,1]", "T[1,3,1,1]", "T[]", "T[1]"],
    },
    "scale-of-matmul": {
        "x": "T[a,b]",
        "w": weight("T[b,c]"),
        "k": ["T[c]", "T[1,c]", "T[]"],
        "dtypes": ("float32", "float64"),
    },
    "pad-of-conv": {
        "x": "T[1,2,5,5]",
        "dtypes": ("float32",),
        "opset": (18, 20, 21),
        "conv": conv,
        "Conv+": conv_weights,
        "pads": [(1, 0, 0, 2), (0, 0, 1, 1)],
        "axes": [(2, 3), (-1, -2)],
        "mode": ["constant"],
        "value": [0.0],
    },
    "one-operand": {"axis": [0]},
    "concat-of-split": {"xs": parts, "axis": [0, -2]},
    "concat-of-concat": {"xs": nested, "axis": [0, -2]},
}
