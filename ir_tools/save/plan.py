"""The plan of an output: which tensor lies in which file at which offset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vlmpass.ir_tools.errors import SaveError
from vlmpass.ir_tools.save.collect import Part, Placed
from vlmpass.ir_tools.save.keep import KeptFile
from vlmpass.ir_tools.save.layout import Layout
from vlmpass.ir_tools.save.pack import NewFile, blocks_of, pack
from vlmpass.ir_tools.save.tensorfile import pack_safetensors
from vlmpass.ir_tools.weights.files import Stamp
from vlmpass.ir_tools.weights.leaves import Stored

__all__ = ["Place", "Plan", "check_sources", "make_plan"]


@dataclass(frozen=True)
class Place:
    """Where bytes lie in the output: in which of all its data files, and at which offset."""

    file: int
    offset: int


@dataclass(frozen=True)
class Plan:
    """Where everything goes.

    Attributes:
        tensors: Every tensor of the model, in its order.
        parts: What holds the bytes of those outside the model file.
        places: Where each part lies; the kept files count first, then the new ones.
        kept: Files that are referred to as they are.
        new: Files to write.
    """

    tensors: Sequence[Placed]
    parts: Sequence[Part]
    places: Sequence[Place]
    kept: Sequence[KeptFile]
    new: Sequence[NewFile]

    @property
    def nbytes(self) -> int:
        """The bytes of all files to write."""
        return sum(file.nbytes for file in self.new)

    def sizes(self) -> list[int]:
        """Return the size of every data file, kept ones first."""
        return [*(file.nbytes for file in self.kept), *(file.nbytes for file in self.new)]


def check_sources(parts: Sequence[Part]) -> None:
    """Check that the files that weights lie in are as they were when these were loaded.

    Raises:
        SaveError: One is gone or has changed.
    """
    stamps: dict[tuple[str, Stamp], str] = {}
    for part in parts:
        expression = part.weight.expression
        if isinstance(expression, Stored):
            stamps.setdefault((expression.path, expression.stamp), part.where)
    for (path, stamp), where in stamps.items():
        try:
            status = Path(path).stat()
        except OSError as error:
            raise SaveError(f"{path}, which holds {where}, is gone: {error.strerror}") from error
        if Stamp.of(status) != stamp:
            raise SaveError(
                f"{path}, which holds {where}, has changed since the model was loaded",
                remedy="load it anew",
            )


def make_plan(
    tensors: Sequence[Placed],
    parts: Sequence[Part],
    kept: Mapping[str, KeptFile],
    layout: Layout,
    limit: int | None,
) -> Plan:
    """Return the plan of an output.

    Args:
        tensors: Every tensor of the model.
        parts: What holds the bytes of those that go outside.
        kept: The files to refer to, by real path.
        layout: Of the output.
        limit: The most bytes a file may have, if there is a limit.

    Raises:
        SaveError: A tensor alone is above the limit.
    """
    numbers = {path: number for number, path in enumerate(kept)}
    places: dict[int, Place] = {}
    fresh: dict[int, Part] = {}
    for number, part in enumerate(parts):
        source = part.source
        if source is not None and part.data_file in numbers:
            places[number] = Place(numbers[source.path], source.offset)
        else:
            fresh[number] = part
    if layout is Layout.SAFETENSORS and limit is not None:
        blocks = blocks_of(fresh, limit, merge=False)
        new = pack_safetensors(blocks, parts, limit)
    else:
        new = pack(blocks_of(fresh, limit, merge=True), limit)
    for index, file in enumerate(new, start=len(kept)):
        for offset, block in file.blocks:
            for number, shift in block.members:
                places[number] = Place(index, offset + shift)
    ordered = [places[number] for number in range(len(parts))]
    return Plan(tensors, parts, ordered, tuple(kept.values()), new)
