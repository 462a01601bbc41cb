"""The algebra of lazy tensors: what an expression is, and its leaves.

An expression is a frozen value that knows its element type and shape and can evaluate any box of
itself; equal expressions have equal bytes.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from vlmpass.ir_tools.errors import ModelError
from vlmpass.ir_tools.weights.arrays import AnyArray, contiguous
from vlmpass.ir_tools.weights.boxes import Box, extent, slices
from vlmpass.ir_tools.weights.files import POOL, Runs, Stamp
from vlmpass.ir_tools.weights.packing import GROUP, is_packed, packed_size, to_file_order, unpack
from vlmpass.ir_tools.weights.tally import Tally

__all__ = ["Expression", "FileRange", "Held", "Stored"]

_WORTH_SKIPPING = 16 << 10  # a gap below this is read through: a system call costs as much
_READ_THROUGH_BYTES = 4 << 20


@dataclass(frozen=True)
class FileRange:
    """Where bytes lie: path (absolute, real), offset and length in bytes."""

    path: str
    offset: int
    length: int


@dataclass(frozen=True)
class Expression(ABC):
    """A lazy tensor as a value: frozen, comparable, picklable, evaluated box by box.

    Attributes:
        dtype: The element type.
        shape: The extents; all known.
    """

    dtype: ir.DataType
    shape: tuple[int, ...]

    @abstractmethod
    def read(self, box: Box, tally: Tally | None = None) -> AnyArray:
        """Evaluate a box, in row-major order; elements of sub-byte types take a byte each.

        Memory is a small multiple of the box, which the caller therefore bounds.
        """

    @property
    @abstractmethod
    def width(self) -> int:
        """The most bytes that one element takes anywhere on the way."""

    @property
    def strided(self) -> bool:
        """Whether neighbours here are far apart in the file, so that larger boxes pay."""
        return False

    @property
    def rows(self) -> int:
        """How many indices of the first axis are computed together, even if fewer are read."""
        return 1

    def prepared(self) -> Expression:
        """Return an equal expression whose leaves are cheap to read many times over."""
        return self

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """The bytes it takes in a file."""
        return packed_size(self.dtype, self.size)


@dataclass(frozen=True)
class Stored(Expression):
    """One range of a file, in row-major order and little endian, sub-byte types packed.

    Attributes:
        path: Of the file, absolute and without links.
        stamp: The state the file must be in when it is read.
        offset: Of the first element, in bytes.
        inline: Whether the file is a model that holds the bytes within its own message: they can
            be read there, but another model cannot refer to them.
    """

    path: str
    stamp: Stamp
    offset: int
    inline: bool = False

    @property
    def width(self) -> int:
        """The bytes of an element in memory."""
        return self.dtype.numpy().itemsize

    @property
    def file_range(self) -> FileRange:
        """Where its bytes lie."""
        return FileRange(self.path, self.offset, self.nbytes)

    def read_bytes(self, start: int, buffer: memoryview) -> None:
        """Fill a buffer with its bytes, from a number of bytes after the first one on."""
        if len(buffer):
            runs = Runs(self.offset + start, len(buffer))
            POOL.read_into(self.path, self.stamp, runs, buffer)

    def read(self, box: Box, tally: Tally | None = None) -> AnyArray:
        """Read contiguous runs, or through the gaps between them where those are small."""
        shape = extent(box)
        out = np.empty(shape, self.dtype.numpy())
        if out.size == 0:
            return out
        axis = len(shape)  # everything right of it is taken whole
        inner = 1
        while axis > 0 and shape[axis - 1] == self.shape[axis - 1]:
            axis -= 1
            inner *= shape[axis]
        axis -= 1
        if axis < 0:
            self._read_run(0, out.reshape(-1))
            return out
        run = shape[axis] * inner
        for first, target in self._rows(box, axis, inner, out.reshape(-1, run)):
            self._read_rows(first, self.shape[axis] * inner, target)
        return out

    def _rows(
        self, box: Box, axis: int, inner: int, out: AnyArray
    ) -> Iterator[tuple[int, AnyArray]]:
        """Yield groups of runs at equal distance: the first element, and where they go.

        Args:
            box: What is read.
            axis: The last one that is not taken whole.
            inner: Elements per step along it.
            out: One row per run, in order.
        """
        strides = [1] * len(self.shape)
        for i in range(len(self.shape) - 2, -1, -1):
            strides[i] = strides[i + 1] * self.shape[i + 1]
        start = box[axis][0] * inner
        if axis == 0:
            yield start, out
            return
        count = box[axis - 1][1] - box[axis - 1][0]
        outer = extent(box)[: axis - 1]
        for number, index in enumerate(np.ndindex(*outer)):
            first = start + box[axis - 1][0] * strides[axis - 1]
            first += sum((box[i][0] + index[i]) * strides[i] for i in range(axis - 1))
            yield first, out[number * count : (number + 1) * count]

    def _read_rows(self, first: int, distance: int, out: AnyArray) -> None:
        """Read runs whose first elements are `distance` apart, one into each row of `out`."""
        count, run = out.shape
        gap = packed_size(self.dtype, distance - run)
        if count > 1 and gap <= _WORTH_SKIPPING:
            self._read_through(first, distance, out)
        elif is_packed(self.dtype):
            for i in range(count):
                self._read_run(first + i * distance, out[i])
        else:
            width = out.itemsize
            runs = Runs(self.offset + first * width, run * width, distance * width)
            POOL.read_into(self.path, self.stamp, runs, out.reshape(-1).view(np.uint8).data)
            self._to_native_order(out)

    def _read_through(self, first: int, distance: int, out: AnyArray) -> None:
        """Read runs together with the gaps between them."""
        count, run = out.shape
        step = max(1, _READ_THROUGH_BYTES // max(1, distance * out.itemsize))
        buffer = np.empty((min(step, count), distance), out.dtype)
        for start in range(0, count, step):
            some = out[start : start + step]
            flat = buffer[: len(some)].reshape(-1)
            self._read_run(first + start * distance, flat[: flat.size - distance + run])
            some[...] = buffer[: len(some), :run]

    def _to_native_order(self, out: AnyArray) -> None:
        ordered = to_file_order(out, self.dtype)
        if ordered is not out:
            out[...] = ordered

    def _read_run(self, first: int, out: AnyArray) -> None:
        """Read consecutive elements into a flat array."""
        if not is_packed(self.dtype):
            self.read_bytes(first * out.itemsize, out.view(np.uint8).data)
            self._to_native_order(out)
            return
        before = first % GROUP
        start = packed_size(self.dtype, first - before)
        stop = packed_size(self.dtype, first + out.size)
        data = np.empty(stop - start, np.uint8)
        self.read_bytes(start, data.data)
        out[...] = unpack(data, before + out.size, self.dtype)[before:]


@dataclass(frozen=True, eq=False)
class Held(Expression):
    """Any tensor that is not lazy in our sense: in memory, or evaluated whole by its own means.

    Two of them are equal only if they hold the same tensor object.

    Attributes:
        tensor: Any tensor but strings.
    """

    tensor: ir.TensorProtocol

    @classmethod
    def of(cls, tensor: ir.TensorProtocol) -> Held:
        """Hold a tensor."""
        return cls(tensor.dtype, tuple(int(size) for size in tensor.shape.numpy()), tensor)

    @property
    def width(self) -> int:
        """The bytes of an element in memory."""
        return self.dtype.numpy().itemsize

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Held) and other.tensor is self.tensor

    def __hash__(self) -> int:
        return hash((Held, id(self.tensor)))

    def __repr__(self) -> str:
        return f"Held({type(self.tensor).__name__})"

    def __reduce__(self) -> tuple[Callable[..., Held], tuple[ir.TensorProtocol]]:
        return Held.of, (self._concrete(),)

    def array(self) -> AnyArray:
        """Return all of it.

        Raises:
            ModelError: The tensor is not what it says it is.
        """
        array: AnyArray = self.tensor.numpy()
        if array.shape != self.shape or array.itemsize != self.width:
            raise ModelError(
                f"tensor {self.tensor.name} says {self.dtype}{list(self.shape)} but evaluates to "
                f"{array.dtype}{list(array.shape)}"
            )
        return array if array.dtype == self.dtype.numpy() else array.view(self.dtype.numpy())

    def read(self, box: Box, tally: Tally | None = None) -> AnyArray:
        """Slice the whole array."""
        return contiguous(self.array()[slices(box)])

    def prepared(self) -> Held:
        """Evaluate the tensor now, once, unless it is an array already."""
        if isinstance(self.tensor, ir.Tensor) and isinstance(self.tensor.raw, np.ndarray):
            return self
        return Held.of(self._concrete())

    def _concrete(self) -> ir.TensorProtocol:
        return ir.Tensor(self.array(), dtype=self.dtype, name=self.tensor.name)
