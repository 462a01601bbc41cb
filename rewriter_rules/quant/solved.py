"""Numbers, scales and zero points that were found before they are written, kept in files."""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import onnx_ir as ir

from vlmpass.ir_tools.errors import ModelError
from vlmpass.ir_tools.evaluate import Array
from vlmpass.ir_tools.weights import expressions
from vlmpass.ir_tools.weights.boxes import Box, strip
from vlmpass.ir_tools.weights.expressions import Unary
from vlmpass.ir_tools.weights.files import Stamp
from vlmpass.ir_tools.weights.leaves import Expression, Stored
from vlmpass.ir_tools.weights.tally import Tally
from vlmpass.ir_tools.worker.folder import WorkFolder
from vlmpass.rewriter_rules.quant.constant import minus
from vlmpass.rewriter_rules.quant.few_bits import Grid

__all__ = ["Home", "Solved"]


class Home:
    """A folder for files that last as long as what reads them; made for the first of them."""

    def __init__(self) -> None:
        self._folder: WorkFolder | None = None
        self._files = 0

    def __reduce__(self) -> tuple[type[object], tuple[()]]:
        """Leave it to this process: a copy elsewhere owns nothing."""
        return object, ()

    def new(self) -> Path:
        """Return the path of a file that is not there yet."""
        if self._folder is None:
            self._folder = WorkFolder()
            weakref.finalize(self, self._folder.remove)
        self._files += 1
        return Path(os.path.realpath(self._folder.path)) / f"{self._files}.bin"


@dataclass(frozen=True)
class _Lent(Unary):
    """What lies in a temporary file, which nothing that is written may refer to.

    Attributes:
        home: Keeps the file.
    """

    home: object = field(compare=False, repr=False)

    def read(self, box: Box, tally: Tally | None = None) -> Array:
        """Read the file."""
        return self.source.read(box, tally)


@dataclass(frozen=True)
class _Floats(Expression):
    """A weight after rounding, as a float again: ``scale * (number - zero point)``."""

    parts: tuple[Expression, Expression, Expression]
    grid: Grid

    @property
    def width(self) -> int:
        """Bytes of a few copies in float32."""
        return 16

    @property
    def strided(self) -> bool:
        """Whether the numbers are."""
        return self.parts[0].strided

    def prepared(self) -> Expression:
        """Prepare all of them."""
        one, two, three = (each.prepared() for each in self.parts)
        return replace(self, parts=(one, two, three))

    def read(self, box: Box, tally: Tally | None = None) -> Array:
        """Scale the numbers of a box."""
        (axis, size), numbers = (self.grid.axis, self.grid.block), self.parts[0].read(box)
        start, stop = box[axis]
        blocks = strip(box, axis, start // size, -(-stop // size))
        of = np.arange(start, stop) // size - start // size
        scales, zeros = (
            each.read(blocks).astype(np.float32).take(of, axis) for each in self.parts[1:]
        )
        made: Array = ((numbers.astype(np.float32) - zeros) * scales).astype(self.dtype.numpy())
        return made


@dataclass(frozen=True)
class Solved:
    """A weight that is rounded already.

    Attributes:
        grid: How.
        stored: Its numbers, scales and zero points, each [outputs, ...].
    """

    grid: Grid
    stored: tuple[Expression, Expression, Expression]

    @classmethod
    def of(
        cls, grid: Grid, shape: tuple[int, ...], found: Iterable[tuple[Array, ...]], home: Home
    ) -> Solved:
        """Write what is found of some outputs after others to a file.

        Args:
            grid: How the weight is rounded.
            shape: Of the weight.
            found: Numbers, scales and zero points, each [outputs, ...].
            home: Where the file lies.

        Raises:
            ModelError: There is no room for it.
        """
        inputs, outputs = shape[grid.axis], shape[1 - grid.axis]
        count = grid.count(shape)[grid.axis]
        kinds = (ir.DataType.UINT8, grid.kind, ir.DataType.UINT8)
        shapes = [(outputs, width) for width in (inputs, count, count)]
        sizes = [
            rows * width * kind.numpy().itemsize
            for (rows, width), kind in zip(shapes, kinds, strict=True)
        ]
        path, places = home.new(), [sum(sizes[:at]) for at in range(3)]
        try:
            with path.open("wb") as file:
                done = list(places)
                for some in found:
                    for at, (array, kind) in enumerate(zip(some, kinds, strict=True)):
                        data = np.ascontiguousarray(array.astype(kind.numpy())).tobytes()
                        file.seek(done[at])
                        done[at] += file.write(data)
        except OSError as error:
            what = f"rounded weights cannot be kept in {path.parent}: {error.strerror or error}"
            raise ModelError(what, remedy="make room there, or set TMPDIR") from error
        stamp = Stamp.of(path.stat())
        one, two, three = (
            _Lent(kind, each, Stored(kind, each, str(path), stamp, place), home)
            for kind, each, place in zip(kinds, shapes, places, strict=True)
        )
        return cls(grid, (one, two, three))

    def _laid(self, found: Expression) -> Expression:
        """Return what is [outputs, ...] in the order of the weight's axes."""
        return expressions.transposed(found, (1, 0)) if self.grid.axis == 0 else found

    def numbers(self, kind: ir.DataType, shift: int) -> Expression:
        """Return the numbers less a shift as a matrix."""
        found = minus(self.stored[0], shift) if shift else self.stored[0]
        return self._laid(expressions.cast(found, kind, True))

    def scales(self) -> Expression:
        """Return the scales as a matrix."""
        return self._laid(self.stored[1])

    def zeros(self, kind: ir.DataType) -> Expression:
        """Return the zero points as a matrix."""
        return self._laid(expressions.cast(self.stored[2], kind, True))

    def rounded(self, kind: ir.DataType) -> Expression:
        """Return the weight as floats."""
        one, two, three = (self._laid(each) for each in self.stored)
        return _Floats(kind, one.shape, (one, two, three), self.grid)
