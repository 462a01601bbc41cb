"""Lazy tensors that quantised weights are made of: graph arithmetic, rows, packed numbers."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from vlmpass.ir_tools.errors import ModelError
from vlmpass.ir_tools.evaluate import Array, evaluate
from vlmpass.ir_tools.weights.arrays import contiguous
from vlmpass.ir_tools.weights.boxes import Box, extent
from vlmpass.ir_tools.weights.expressions import Unary
from vlmpass.ir_tools.weights.leaves import Expression, Stored
from vlmpass.ir_tools.weights.tally import Tally

__all__ = ["Elementwise", "Merged", "Packed", "Rows", "Spread", "Step", "spread"]


@dataclass(frozen=True)
class Step:
    """One node of elementwise arithmetic.

    Attributes:
        op_type: The operator.
        attributes: Its integer and string attributes.
        operands: Indices: the sources come first, then the results of the steps before.
    """

    op_type: str
    attributes: tuple[tuple[str, int | str], ...]
    operands: tuple[int, ...]


@dataclass(frozen=True)
class Elementwise(Expression):
    """What nodes of a graph compute element by element, as those nodes define it.

    Attributes:
        sources: What enters; extents of 1 are broadcast, all have the rank of the result.
        steps: The nodes in order; the last one gives the result.
        opset: The opset they belong to.
    """

    sources: tuple[Expression, ...]
    steps: tuple[Step, ...]
    opset: int

    @property
    def width(self) -> int:
        """Bytes per element on the way: every step may hold 8."""
        return 8 * (len(self.sources) + len(self.steps))

    def prepared(self) -> Expression:
        """Prepare all sources."""
        return replace(self, sources=tuple(source.prepared() for source in self.sources))

    def read(self, box: Box, tally: Tally | None = None) -> Array:
        """Evaluate the nodes on the parts of the sources that belong to a box."""
        results: list[Array] = []
        for source in self.sources:
            axes = zip(box, source.shape, strict=True)
            part = tuple((0, 1) if size == 1 else ends for ends, size in axes)
            results.append(source.read(part, tally))
        for step in self.steps:
            results.append(self._run(step, [results[i] for i in step.operands]))
        last = np.broadcast_to(results[-1], extent(box))
        return np.asarray(last, order="C")  # which, unlike ascontiguousarray, keeps rank 0

    def _run(self, step: Step, inputs: list[Array]) -> Array:
        if step.op_type == "Div" and inputs[0].dtype.kind == "i" and (inputs[1] > 0).all():
            return _truncated(*inputs)
        attributes = [
            ir.AttrString(name, value) if isinstance(value, str) else ir.AttrInt64(name, value)
            for name, value in step.attributes
        ]
        node = ir.Node("", step.op_type, [None] * len(inputs), attributes, num_outputs=1)
        found = evaluate(node, inputs, {"": self.opset})
        if found is None:
            raise ModelError(f"{step.op_type} on packed weights cannot be evaluated exactly")
        return found[0]


def _truncated(a: Array, b: Array) -> Array:
    """Divide integers by positive ones, rounding towards zero, the lowest number included."""
    quotient = np.floor_divide(a, b)
    return np.asarray(quotient + ((quotient < 0) & (np.mod(a, b) != 0)).astype(a.dtype))


@dataclass(frozen=True)
class Rows(Unary):
    """Rows of a source in another order, with or without repetition.

    Attributes:
        index: Which row of the source each row is: integers of rank 1, negative ones from the end.
    """

    index: Expression

    def prepared(self) -> Expression:
        """Prepare the source and the index."""
        return replace(self, source=self.source.prepared(), index=self.index.prepared())

    def read(self, box: Box, tally: Tally | None = None) -> Array:
        """Read every row once, and rows that are neighbours in the source together."""
        asked = self.index.read(box[:1]).astype(np.int64)
        asked[asked < 0] += self.source.shape[0]
        wanted, places = np.unique(asked, return_inverse=True)
        out = np.empty((len(wanted), *extent(box)[1:]), self.dtype.numpy())
        ends = np.flatnonzero(np.diff(wanted, append=-1) != 1) + 1
        first = 0
        for last in ends.tolist():
            rows = (int(wanted[first]), int(wanted[last - 1]) + 1)
            out[first:last] = self.source.read((rows, *box[1:]), tally)
            first = last
        return out if np.array_equal(wanted, asked) else out[places]


@dataclass(frozen=True)
class Merged(Unary):
    """Two neighbouring axes of a source as one, readable by any box without detours.

    Attributes:
        axis: The first of the two axes.
    """

    axis: int

    def read(self, box: Box, tally: Tally | None = None) -> Array:
        """Read whole groups of the inner axis and cut off what was not asked for."""
        inner = self.source.shape[self.axis + 1]
        start, stop = box[self.axis]
        first, last = start // inner, -(-stop // inner)
        around = (*box[: self.axis], (first, last), (0, inner), *box[self.axis + 1 :])
        found = self.source.read(around, tally)
        shape = (*found.shape[: self.axis], (last - first) * inner, *found.shape[self.axis + 2 :])
        wanted = slice(start - first * inner, stop - first * inner)
        where = (*(slice(None),) * self.axis, wanted)
        return np.asarray(found.reshape(shape)[where], order="C")


@dataclass(frozen=True)
class Packed(Unary):
    """Numbers of 2 or 4 bits as the bytes that hold them, the lower bits first.

    The source is of a sub-byte type and its last extent fills whole bytes.
    """

    @property
    def width(self) -> int:
        """The source's, for each number in a byte."""
        return self.source.width * self._each

    @property
    def _each(self) -> int:
        return 8 // self.source.dtype.bitwidth

    def read(self, box: Box, tally: Tally | None = None) -> Array:
        """Read the numbers and put them together."""
        start, stop = box[-1]
        inner = self.source.read((*box[:-1], (start * self._each, stop * self._each)), tally)
        parts = inner.view(np.uint8).reshape(*extent(box), self._each)
        out = np.zeros(extent(box), np.uint8)
        mask = np.uint8((1 << self.source.dtype.bitwidth) - 1)
        for place in range(self._each):
            out |= (parts[..., place] & mask) << np.uint8(place * self.source.dtype.bitwidth)
        return out


@dataclass(frozen=True)
class Spread(Unary):
    """Bytes as the numbers of fewer bits that they hold, the lower bits first.

    Attributes:
        bits: How many bits a number has: 2, 4 or 8.
    """

    bits: int

    def read(self, box: Box, tally: Tally | None = None) -> Array:
        """Read the bytes around the numbers and cut off what was not asked for."""
        each = 8 // self.bits
        start, stop = box[-1]
        first = start // each
        found = self.source.read((*box[:-1], (first, -(-stop // each))), tally)
        places = np.arange(each, dtype=np.uint8) * np.uint8(self.bits)
        numbers = (found[..., None] >> places) & np.uint8((1 << self.bits) - 1)
        flat = numbers.reshape(*found.shape[:-1], found.shape[-1] * each)
        return contiguous(flat[..., start - first * each : stop - first * each]).view(
            self.dtype.numpy()
        )


def spread(source: Expression, bits: int, dtype: ir.DataType) -> Expression:
    """Return bytes as the numbers they hold; those of a file stay where they are if they can.

    Args:
        source: Of bytes.
        bits: How many bits a number has: 2, 4 or 8.
        dtype: The type of the numbers.
    """
    shape = (*source.shape[:-1], source.shape[-1] * (8 // bits))
    if isinstance(source, Stored) and dtype.bitwidth == bits:
        return replace(source, dtype=dtype, shape=shape)
    return Spread(dtype, shape, source, bits)
