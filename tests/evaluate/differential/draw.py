"""Random cases of one node: element types, shapes, numbers and attributes, edges included."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from vlmpass.ir_tools.operators.schema import Formal, history, in_force

NEWEST = 24
"""The newest opset drawn; every runtime installed runs it."""
COMMON = ("float", "int64", "int32", "double", "float16", "bool", "uint8", "string", "bfloat16")
EDGE_FLOATS = (
    0.0,
    -0.0,
    1.0,
    -1.0,
    0.5,
    -0.5,
    1.5,
    2.5,
    -2.5,
    np.nan,
    np.inf,
    -np.inf,
    3e38,
    1e-40,
)


@dataclass
class Case:
    """One node with the constants it gets.

    Attributes:
        inputs: In order; None is an input left out.
        outputs: How many there are.
        wild: Whether it was changed into something that may be no valid node.
    """

    op_type: str
    opset: int
    inputs: list[np.ndarray | None]
    attributes: dict[str, object] = field(default_factory=dict)
    outputs: int = 1
    wild: bool = False

    def __str__(self) -> str:
        shown = ", ".join("-" if x is None else f"{x.dtype}{x.shape}" for x in self.inputs)
        return f"{self.op_type}-{self.opset}({shown}) {self.attributes}"


def dtype_of(text: str) -> ir.DataType:
    """Return the element type that a schema spells as ``tensor(float)``."""
    return ir.DataType[text.removeprefix("tensor(").removesuffix(")").upper()]


def element_type(array: np.ndarray) -> ir.DataType:
    """Return the element type of an array; one of objects holds strings."""
    return ir.DataType.STRING if array.dtype == object else ir.DataType.from_numpy(array.dtype)


class Draw:
    """A seeded source of everything in a case."""

    def __init__(self, seed: Sequence[int]) -> None:
        self.rng = np.random.default_rng(seed)

    def chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def among(self, options: Sequence):
        return options[int(self.rng.integers(len(options)))]

    def integer(self, low: int, high: int) -> int:
        """Return a number, both ends included."""
        return int(self.rng.integers(low, high + 1))

    def size(self) -> int:
        return int(self.rng.choice([0, 1, 2, 3, 4], p=[0.06, 0.26, 0.3, 0.26, 0.12]))

    def shape(self, low: int = 0, high: int = 4) -> tuple[int, ...]:
        return tuple(self.size() for _ in range(self.integer(low, high)))

    def axis(self, rank: int) -> int:
        """Return an axis from either end."""
        return self.integer(-rank, rank - 1) if rank else 0

    def axes(self, rank: int) -> list[int]:
        """Return some distinct axes, each from either end."""
        count = self.integer(0, rank)
        chosen = self.rng.permutation(rank)[:count]
        return [int(axis) - (rank if self.chance(0.3) else 0) for axis in chosen]

    def narrowed(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return a shape that broadcasts to another, most often."""
        kept = [1 if self.chance(0.2) else size for size in shape]
        if self.chance(0.03) and kept:
            kept[self.integer(0, len(kept) - 1)] = self.size()
        return tuple(kept[self.integer(0, len(kept)) if self.chance(0.3) else 0 :])

    def opset(self, op_type: str, low: int = 7) -> int:
        versions = [max(low, each) for each in history(op_type) if each <= NEWEST]
        first = self.among(sorted(set(versions)))
        return self.integer(first, NEWEST) if self.chance(0.3) else first

    def dtype(self, formal: Formal, common: float = 0.85) -> ir.DataType:
        allowed = sorted(each for each in formal.types if each.startswith("tensor("))
        usual = [each for each in allowed if each[7:-1] in COMMON]
        if usual and self.chance(common):
            return dtype_of(self.among(usual))
        return dtype_of(self.among(allowed))

    def array(self, shape: tuple[int, ...], dtype: ir.DataType) -> np.ndarray:
        """Return numbers of a type; in a quarter of the cases edges are among them."""
        count = int(np.prod(shape, dtype=np.int64))
        edges = self.chance(0.3)
        if dtype == ir.DataType.STRING:
            words = np.array(["", "a", "ab", "é", "-1", "b"], dtype=object)
            return words[self.rng.integers(0, len(words), count)].reshape(shape)
        if dtype == ir.DataType.BOOL:
            return self.rng.integers(0, 2, count).astype(np.bool_).reshape(shape)
        native = dtype.numpy()
        if dtype.is_integer():
            return self._integers(count, dtype, edges).reshape(shape)
        numbers = self.rng.standard_normal(count) * self.rng.choice([0.1, 1, 3, 40], count)
        numbers = np.round(numbers) if self.chance(0.4) else numbers
        if edges:
            numbers = np.where(
                self.rng.random(count) < 0.4, self.rng.choice(EDGE_FLOATS, count), numbers
            )
        with np.errstate(all="ignore"):
            return numbers.astype(native).reshape(shape)

    def _integers(self, count: int, dtype: ir.DataType, edges: bool) -> np.ndarray:
        low, high = int(dtype.min), int(dtype.max)
        numbers = [self.integer(max(low, -6), min(high, 6)) for _ in range(count)]
        for index in range(count) if edges else ():
            if self.chance(0.4):
                numbers[index] = self.among((low, high, low + 1, high - 1, 0, 1, max(low, -1)))
        return np.array(numbers, object).astype(dtype.numpy())

    def ints(self, low: int, high: int, shape: tuple[int, ...] | int) -> np.ndarray:
        return self.rng.integers(low, high + 1, shape).astype(np.int64)

    def formals(self, op_type: str, opset: int) -> tuple[Formal, ...]:
        schema = in_force("", op_type, opset)
        assert schema is not None
        return schema.inputs
