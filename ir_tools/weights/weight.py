"""Weights: lazy tensors with a name, which stand wherever onnx_ir takes a tensor."""

from __future__ import annotations

import io
import os
from abc import abstractmethod
from collections.abc import Iterator
from functools import cache, lru_cache
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from vlmpass.ir_tools.errors import ModelError
from vlmpass.ir_tools.weights.arrays import AnyArray
from vlmpass.ir_tools.weights.boxes import Box, full
from vlmpass.ir_tools.weights.evaluate import byte_chunks, byte_pieces, evaluate
from vlmpass.ir_tools.weights.files import Stamp
from vlmpass.ir_tools.weights.leaves import Expression, FileRange, Held, Stored
from vlmpass.ir_tools.weights.tally import Tally

__all__ = ["LazyWeight", "StoredWeight", "Weight", "as_weight", "file_range"]


class Weight(ir.TensorProtocol):
    """A tensor that is evaluated box by box and never held whole unless asked for.

    Attributes:
        dtype: The element type.
        shape: All extents known.
        name: Of the initializer, if it is one.
    """

    __slots__ = ()

    @property
    @abstractmethod
    def expression(self) -> Expression:
        """What it evaluates to, as a value: equal expressions have equal bytes."""

    @property
    def size(self) -> int:
        """The number of elements."""
        return self.expression.size

    @property
    def nbytes(self) -> int:
        """The bytes it takes in a file; sub-byte types are packed."""
        return self.expression.nbytes

    def read(self, box: Box, tally: Tally | None = None) -> AnyArray:
        """Evaluate a box, one (start, stop) per axis, into an array of the numpy type of `dtype`.

        Elements of sub-byte types take a byte each. Memory is a small multiple of the box.

        Raises:
            ModelError: The file changed, or a value has no counterpart in an integer type.
            ValueError: The box does not lie inside the shape.
        """
        shape = self.expression.shape
        fits = len(box) == len(shape) and all(
            0 <= start <= stop <= size for (start, stop), size in zip(box, shape, strict=True)
        )
        if not fits:
            raise ValueError(f"box {box} does not lie inside {list(shape)}")
        return self.expression.read(box, tally)

    def chunks(self, tally: Tally | None = None) -> Iterator[memoryview]:
        """Yield its bytes as in a file, in order, at most `CHUNK_BYTES` at a time.

        Memory stays below 64 MB for any tensor. A chunk stays valid when the next is made.

        Raises:
            ModelError: As in `read`.
        """
        return byte_chunks(self.expression, tally)

    def pieces(self, tally: Tally | None = None) -> Iterator[tuple[int, memoryview]]:
        """Yield its bytes as in a file, in pieces with their offsets and in any order.

        Every byte comes once, at most `CHUNK_BYTES` at a time. For who can write at any place this
        is the faster way: a transposed matrix is read and written in long runs.

        Raises:
            ModelError: As in `read`.
        """
        return byte_pieces(self.expression, tally)

    def file_range(self) -> FileRange | None:
        """Return where these very bytes lie in a data file, or None if they do not.

        It is None for tensors inside of a .onnx file, which no other file can refer to.
        """
        expression = self.expression
        if isinstance(expression, Stored) and not expression.inline:
            return expression.file_range
        return None

    def numpy(self) -> AnyArray:
        """Evaluate all of it into one array."""
        return evaluate(self.expression)

    def tobytes(self) -> bytes:
        """Evaluate all of it into the bytes of a file."""
        buffer = io.BytesIO()
        self.tofile(buffer)
        return buffer.getvalue()

    def tofile(self, file: BinaryIO) -> None:
        """Write its bytes to a file object, chunk by chunk."""
        for chunk in self.chunks():
            file.write(chunk)

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> AnyArray:
        array = self.numpy()
        return array if dtype is None else array.astype(dtype, copy=False)

    def __dlpack__(self, *, stream: object = None) -> object:
        return self.numpy().__dlpack__(stream=stream)

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)  # the CPU


class LazyWeight(Weight):
    """A weight that is computed from others when it is read.

    Args:
        expression: What it evaluates to.
        name: Of the initializer, if it is one.
        doc_string: Kept when the model is written.
        metadata_props: Kept when the model is written.
    """

    def __init__(
        self,
        expression: Expression,
        *,
        name: str | None = None,
        doc_string: str | None = None,
        metadata_props: dict[str, str] | None = None,
    ) -> None:
        self._expression = expression
        self.name = name
        self.dtype = expression.dtype
        self.shape = ir.Shape(expression.shape, frozen=True)
        self.doc_string = doc_string
        self.metadata_props = dict(metadata_props or {})
        self.meta = {}

    @property
    def expression(self) -> Expression:
        """What it evaluates to."""
        return self._expression

    @property
    def raw(self) -> Expression:
        """The expression."""
        return self._expression

    def __repr__(self) -> str:
        what = type(self._expression).__name__
        return f"LazyWeight<{self.dtype},{self.shape}>({what}, name={self.name!r})"


_SMALL_BYTES = 1024


@lru_cache(maxsize=1 << 16)  # fewer than a graph has, gone over in order, would all be missed
def _read_small(stored: Stored) -> AnyArray:
    return stored.read(full(stored.shape))


class StoredWeight(Weight, ir.ExternalTensor):
    """A weight that lies in a file: onnx_ir's external tensor, read in pieces and never mapped.

    Args:
        location: Of the file, relative to `base_dir`, with forward slashes.
        offset: Of the first byte; None means 0.
        length: In bytes; None means what dtype and shape need.
        dtype: The element type.
        shape: All extents known.
        name: Of the initializer; may be empty.
        base_dir: The folder of the model.
        checksum: The SHA-1 that the model states for the data, if it does; kept, not verified.
        doc_string: Kept when the model is written.
        metadata_props: Kept when the model is written.
        path: The file itself, absolute and without links, if that is known already.
        stamp: The state the file is in, if that is known already.

    Raises:
        ModelError: The file does not exist or is too short.
    """

    __slots__ = ("_stored", "checksum")

    def __init__(
        self,
        location: str | os.PathLike[str],
        offset: int | None,
        length: int | None,
        dtype: ir.DataType,
        *,
        shape: ir.Shape,
        name: str,
        base_dir: str | os.PathLike[str] = "",
        checksum: str | None = None,
        doc_string: str | None = None,
        metadata_props: dict[str, str] | None = None,
        path: str | None = None,
        stamp: Stamp | None = None,
    ) -> None:
        ir.ExternalTensor.__init__(
            self,
            location,
            offset,
            length,
            dtype,
            shape=shape,
            name=name,
            doc_string=doc_string,
            metadata_props=metadata_props,
            base_dir=base_dir,
        )
        self.checksum = checksum
        self._stored: Stored = self._located(path, stamp)

    def _located(self, path: str | None = None, stamp: Stamp | None = None) -> Stored:
        path = path or os.path.realpath(self.path)
        stamp = stamp or _stamp(path, self.name)
        sizes = tuple(int(size) for size in self.shape.numpy())
        stored = Stored(self.dtype, sizes, path, stamp, self.offset or 0)
        _check_range(stored, self.length, self.name)
        return stored

    def numpy(self) -> AnyArray:
        """Evaluate all of it into one array; the file is read once for a small tensor."""
        stored = self.expression
        if isinstance(stored, Stored) and stored.nbytes <= _SMALL_BYTES:
            kept: AnyArray = _read_small(stored)
            return np.array(kept)
        return evaluate(stored)

    @property
    def expression(self) -> Expression:
        """The range of the file."""
        self._check_validity()
        return self._stored

    @property
    def base_dir(self) -> str | os.PathLike[str]:
        """The folder of the model; setting it looks the file up there and raises as above."""
        return self._base_dir

    @base_dir.setter
    def base_dir(self, value: str | os.PathLike[str]) -> None:
        self._base_dir = value
        self._stored = self._located()

    def __repr__(self) -> str:
        return ir.ExternalTensor.__repr__(self)


def _stamp(path: str, name: str) -> Stamp:
    try:
        return Stamp.of(os.stat(path))
    except OSError as error:
        raise ModelError(f"the data of tensor {name} in {path}: {error.strerror}") from error


def _check_range(stored: Stored, length: int | None, name: str) -> None:
    need = stored.nbytes
    if length is not None and length != need:
        raise ModelError(
            f"tensor {name} is {stored.dtype}{list(stored.shape)}, {need} bytes, but says that "
            f"its data are {length} bytes"
        )
    if stored.offset < 0 or stored.offset + need > stored.stamp.size:
        raise ModelError(
            f"tensor {name} wants bytes {stored.offset} to {stored.offset + need} of "
            f"{stored.path}, which has {stored.stamp.size}"
        )


def file_range(tensor: ir.TensorProtocol) -> FileRange | None:
    """Return where a tensor's very bytes lie on disk, if they do; strings never lie in a data file.

    Raises:
        ModelError: Its data are not where it says.
    """
    if not _may_lie_in_files(type(tensor)) or tensor.dtype == ir.DataType.STRING:
        return None
    return as_weight(tensor).file_range()


@cache
def _may_lie_in_files(kind: type) -> bool:
    return issubclass(kind, (Weight, ir.ExternalTensor))  # slow: their bases include a protocol


def as_weight(tensor: ir.TensorProtocol) -> Weight:
    """Return any tensor as a weight; a weight is returned as it is.

    Raises:
        ModelError: It holds strings, or its data are not where it says.
    """
    if isinstance(tensor, Weight):
        return tensor
    if tensor.dtype in (ir.DataType.STRING, ir.DataType.UNDEFINED):
        raise ModelError(f"tensor {tensor.name} holds {tensor.dtype} and is no weight")
    if isinstance(tensor, ir.ExternalTensor):
        return StoredWeight(
            tensor.location,
            tensor.offset,
            tensor.length,
            tensor.dtype,
            shape=tensor.shape,
            name=tensor.name,
            base_dir=tensor.base_dir,
            doc_string=tensor.doc_string,
            metadata_props=dict(tensor.metadata_props),
        )
    return LazyWeight(
        Held.of(tensor),
        name=tensor.name,
        doc_string=tensor.doc_string,
        metadata_props=dict(tensor.metadata_props),
    )
