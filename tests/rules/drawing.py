"""Random operands and attributes for hints."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx_ir as ir

from rules.instances import Draw, Hints

NUMERIC = ("float32", "float16", "float64", "int32", "int64")


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


def conv(draw: Draw) -> Mapping[str, object]:
    return {"pads": [1, 1, 1, 1], "strides": [int(draw.rng.integers(1, 3))] * 2}


def parts(draw: Draw) -> list[ir.Value]:
    """All parts of a Split along some axis."""
    x = draw.input((4, 4), draw.dtype)
    sizes = draw.constant(np.array([1, 3]))
    axis = ir.AttrInt64("axis", int(draw.rng.integers(0, 2)))
    draw.place(ir.Node("", "Split", [x, sizes], [axis], num_outputs=2))
    return list(draw.graph[-1].outputs)


def single_column(draw: Draw) -> ir.Value:
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


ORT_TYPES = ("float32", "float16")

FLOAT = ir.DataType.FLOAT.value


def own_type(draw: Draw) -> int:
    return int(ir.DataType.from_numpy(draw.dtype).value)


def number(value: float) -> Callable[[Draw], np.ndarray]:
    return lambda draw: np.asarray(value, draw.dtype)


SKIP_HINTS: Hints = {
    "a": "T[a,b,8]",
    "b": "T[a,b,8]",
    "scale": "T[8]",
    "beta": "T[8]",
    "bias": "T[8]",
    "eps": [1e-5, 1e-3],
    "dtypes": ORT_TYPES,
    "opset": (17, 18, 20),
}


def epsilon(draw: Draw) -> Mapping[str, object]:
    return {"epsilon": float(draw.choose((1e-5, 1e-3))), "axis": -1}  # type: ignore[arg-type]


def half_array(number: float) -> np.ndarray:
    return np.asarray(number, np.float16)
