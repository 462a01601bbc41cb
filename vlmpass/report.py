"""What a conversion did: counts read off the final graph, as data, as JSON and on screen."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
import onnx_ir as ir

from vlmpass.ir_tools.graph.effects import EXACT, NumberChanges
from vlmpass.ir_tools.inspecting import Facts
from vlmpass.ir_tools.load import load
from vlmpass.ir_tools.parts.composing import composed
from vlmpass.ir_tools.parts.manifest import manifest_of
from vlmpass.ir_tools.save import SaveReport, save
from vlmpass.ir_tools.worker.folder import WorkFolder
from vlmpass.part_reports import SplitReport
from vlmpass.passes import PassReport
from vlmpass.stages import Stage

if TYPE_CHECKING:
    from rich.console import RenderableType

    from vlmpass.ir_tools.run import Verification

__all__ = ["NOT_TRIED", "Checked", "Loaded", "Report", "Snapshot", "to_data"]


@dataclass(frozen=True)
class Snapshot:
    """A model before or after.

    Attributes:
        facts: Its figures.
        nbytes: Bytes of the model file and the data files it refers to; for a model in memory,
            of its tensors.
        shards: How many data files; 0 where all weights lie in the model file or in memory.
    """

    facts: Facts
    nbytes: int
    shards: int


@dataclass(frozen=True)
class Loaded:
    """Whether ONNX Runtime loads the result at its default optimisation level.

    Attributes:
        ok: None if it was not tried.
        reason: Why not; empty if it does.
        there: What the runtime of the target made of it, where that is another and was asked for.
    """

    ok: bool | None
    reason: str = ""
    there: str = ""


NOT_TRIED = Loaded(None, "not asked for")


@dataclass(frozen=True)
class Checked:
    """What was verified of the result.

    Attributes:
        types: Whether the full type check of the result passed; False if it was not asked for.
        numbers: The comparison with the source, if there was one.
        reason: Why there was none; empty if there was.
        loaded: Whether ONNX Runtime loads it.
        rounded: The comparison with every value rounded as half-precision hardware does, if the
            result computes in half precision and the source did not.
    """

    types: bool
    numbers: Verification | None
    reason: str
    loaded: Loaded = NOT_TRIED
    rounded: Verification | None = None


@dataclass(frozen=True)
class Report:
    """A pipeline run or a conversion.

    Attributes:
        pipeline: Its text.
        before: The source.
        after: The result, read off the final graph.
        passes: Every pass in order.
        checked: What was verified.
        seconds: Wall time of everything.
        peak_rss: The most bytes of physical memory this process has held.
        source: Path of the source; None for a model in memory.
        saved: What was written; None for a run in memory.
        notes: What a reader should know, such as values that a narrower type cannot hold.
        result: The result of a run in memory; None for one that was written.
        stages: What was done around the passes; the stage ``passes`` is all of them.
        changes: What the passes did to numbers; `verify` takes it, too.
        planned: Whether nothing was written, and `saved` is what would be.
        split: The parts that were written, where the result was asked for in parts.
    """

    pipeline: str
    before: Snapshot
    after: Snapshot
    passes: tuple[PassReport, ...]
    checked: Checked
    seconds: float
    peak_rss: int
    source: str | None = None
    saved: SaveReport | None = None
    notes: tuple[str, ...] = ()
    result: ir.Model | None = field(default=None, repr=False, compare=False)
    stages: tuple[Stage, ...] = ()
    changes: NumberChanges = EXACT
    planned: bool = False
    split: SplitReport | None = None

    @property
    def model(self) -> ir.Model:
        """The result; one that was written is opened anew each time, parts joined."""
        if self.result is not None:
            return self.result
        if self.split is not None:
            return composed(manifest_of(self.split.manifest))
        assert self.saved is not None
        return load(self.saved.path)

    def proto(self) -> onnx.ModelProto:
        """Return the result as a ModelProto with its weights in it.

        Raises:
            SaveError: It takes more than the 2 GB that a protobuf can have.
        """
        folder = WorkFolder()
        try:
            saved = save(self.model, folder.path / "model.onnx", layout="inline")
            return onnx.load_model(saved.path, load_external_data=False)
        finally:
            folder.remove()

    def to_json(self) -> dict[str, object]:
        """Return everything but the model as what `json.dumps` takes."""
        fields = [each for each in dataclasses.fields(self) if each.name != "result"]
        return {each.name: to_data(getattr(self, each.name)) for each in fields}

    def __rich__(self) -> RenderableType:
        from vlmpass.screens.conversion import report_screen

        return report_screen(self)

    def __str__(self) -> str:
        """Return the report as plain text."""
        from vlmpass.screens.text import plain

        return plain(self)


def to_data(value: object) -> object:
    """Return dataclasses, mappings and sequences as what `json.dumps` takes."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = dataclasses.fields(value)
        return {each.name: to_data(getattr(value, each.name)) for each in fields}
    if isinstance(value, Mapping):
        return {_key(key): to_data(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [to_data(item) for item in value]
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, Path):
        return str(value)
    return value


def _key(key: object) -> str:
    return "*".join(map(str, key)) if isinstance(key, tuple) else str(key)
