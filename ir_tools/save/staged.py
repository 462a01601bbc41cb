"""An output in its temporary folder, its data files written, before anything takes its place."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import onnx_ir as ir

from vlmpass.ir_tools.check import check_written
from vlmpass.ir_tools.load.lost import refuse_lost
from vlmpass.ir_tools.load.parse import Parsed, parse_file
from vlmpass.ir_tools.load.source import load
from vlmpass.ir_tools.load.tensors import TensorVet
from vlmpass.ir_tools.load.validate import vet
from vlmpass.ir_tools.save.commit import Prepared
from vlmpass.ir_tools.save.forms import parsed
from vlmpass.ir_tools.save.prepare import Output
from vlmpass.ir_tools.save.read_back import check_model_file, check_references
from vlmpass.ir_tools.save.tasks import StagedFile
from vlmpass.ir_tools.save.write import naming
from vlmpass.ir_tools.system.collector import without_collector

__all__ = ["Staged"]


@dataclass(frozen=True)
class Staged:
    """An output whose data files are written.

    Attributes:
        source: The model in memory that it is the serialised form of.
        output: What was planned.
        folder: The temporary folder.
    """

    source: ir.Model
    output: Output
    folder: Path

    @property
    def model(self) -> Prepared:
        """The model file and its final place."""
        return Prepared(self.folder / "model", self.output.path)

    @property
    def interim(self) -> Path:
        """A model file for the time in which data files move."""
        return self.folder / "interim"

    def data(self, names: Sequence[str]) -> list[Prepared]:
        """Return the new data files, given the names of all."""
        new = names[len(self.output.plan.kept) :]
        return [
            Prepared(self.folder / str(number), self.output.path.parent / name)
            for number, name in enumerate(new)
        ]

    def files(self) -> list[StagedFile]:
        """Return what to write before the commit."""
        contents = zip(self.data(self.output.expected), self.output.plan.new, strict=True)
        files = [StagedFile(data.path, data.final.name, content) for data, content in contents]
        if self.output.whole is not None:
            files.append(StagedFile(self.model.path, self.output.path.name, self.output.whole))
        return files

    def check(self) -> None:
        """Check the output as it was written, fully, without making it a graph once more.

        Its bytes are read back, and what a load looks at in a protobuf is looked at: fields,
        names, tensors and the files that they refer to. The type check reads the same bytes, in
        another process meanwhile.
        Names, versions and calls are looked at in the graph that was serialised: that it can be
        held as IR and that its nodes are these is so by construction, for it came from there.

        Raises:
            CheckError: It is no valid model.
            ModelError: It is none that could be opened.
            SaveError: It refers to data that were not written.
        """
        read = self._reader()
        look = without_collector(lambda: self._look_at(read()))
        check_written(self.source, lambda: read().proto, self._bytes_of, look)

    def load(self) -> ir.Model:
        """Return the output as it was written, its data where they were prepared."""
        if self.output.whole is not None:
            return load(self.model.path)
        return load(self._reader()().proto, base_dir=self.output.path.parent)

    def write_model(self, path: Path, names: Sequence[str]) -> str | None:
        """Write a model file that refers to data files by these names, and read it back."""
        content, note = self.output.model_bytes(names)
        with naming(self.output.path.name), path.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        sizes = dict(zip(names, self.output.plan.sizes(), strict=True))
        check_model_file(path, self.output.path, sizes)
        return note

    def _names(self) -> list[str]:
        """Return where the data files lie now, from the output's folder."""
        kept = [file.name for file in self.output.plan.kept]
        new = self.data(self.output.expected)
        return [*kept, *(f"{self.folder.name}/{file.path.name}" for file in new)]

    def _reader(self) -> Callable[[], Parsed]:
        """Return what parses the output as it was written, anew each time."""
        if self.output.whole is not None:
            return partial(parse_file, self.model.path)
        content, _ = self.output.model_bytes(self._names())
        return lambda: Parsed(parsed(content, self.output.path))

    def _look_at(self, read: Parsed) -> None:
        """Look at the output as a load does."""
        refuse_lost(read.proto, owned=True)
        vet(read.proto, TensorVet())
        folder = self.output.path.parent
        sizes = {name: (folder / name).stat().st_size for name in self._names()}
        if read.stamp is not None:
            sizes[read.inline_location] = read.stamp.size
        check_references(read.proto, self.output.path, sizes)

    def _bytes_of(self, location: str, offset: int, length: int) -> bytes:
        """Return a few bytes of a data file."""
        inside = self.output.whole is not None
        path = self.model.path if inside else self.output.path.parent / location
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(length)
