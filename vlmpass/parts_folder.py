"""The folder that a model is split into: the parts take their places there all together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, TypedDict

import onnx_ir as ir

from vlmpass.convert_options import Writing
from vlmpass.ir_tools.graph.describe import describe_type
from vlmpass.ir_tools.graph.walk import weight_bytes
from vlmpass.ir_tools.load import load
from vlmpass.ir_tools.parts.composing import joined
from vlmpass.ir_tools.parts.manifest import MANIFEST, Manifest, Part, files_known, write_manifest
from vlmpass.ir_tools.save import SaveReport
from vlmpass.ir_tools.save.layout import Layout, Weights
from vlmpass.ir_tools.save.saving import Draft, drafted
from vlmpass.part_reports import PartReport, SplitReport
from vlmpass.replacing import Replacement, Sources, made_folder, refuse_taken, replacement

__all__ = ["Judged", "NamedPart", "PartsFolder", "Progress", "told", "ways"]

Judged: TypeAlias = "Callable[[ir.Model, Mapping[str, ir.Model]], None]"
Progress: TypeAlias = "Callable[[int, int], None] | None"
_STORE = "weights.onnx"


@dataclass(frozen=True)
class NamedPart:
    """A part, what it is called, and the name of its file."""

    name: str
    file: str
    model: ir.Model


class _Ways(TypedDict):
    shard_size: int | str | None
    layout: Layout | str
    weights: Weights
    jobs: int | None


def ways(writing: Writing) -> _Ways:
    """Return what `save` takes of them."""
    return {
        "shard_size": writing.shard_size,
        "layout": writing.layout,
        "weights": writing.weights,
        "jobs": writing.jobs,
    }


def told(name: str, model: ir.Model, saved: SaveReport) -> PartReport:
    """Return what is told of a model that was written.

    Args:
        name: What it is called; empty where it is one of none.
        model: What was written.
        saved: How.
    """
    graph = model.graph
    types = [
        {str(value.name): describe_type(value) for value in values}
        for values in (graph.inputs, graph.outputs)
    ]
    return PartReport(name, len(graph), types[0], types[1], weight_bytes(model), saved)


class PartsFolder:
    """Where parts go. What is there already stays, but for the parts of a split before this one.

    Args:
        folder: Made where it does not exist.
        sources: What is split, never replaced.
        writing: How; with `force`, what has the name of a part is replaced.

    Raises:
        SaveError: A manifest is there that is none of parts.
    """

    def __init__(self, folder: Path, sources: Sources, writing: Writing) -> None:
        self._folder, self._sources, self._writing = folder, sources, writing
        known = files_known(folder / MANIFEST)
        self._before = known or ()
        if known is None:
            self._claim(MANIFEST)

    def write(
        self,
        model: ir.Model,
        parts: Sequence[NamedPart],
        share: bool,
        progress: Progress,
        judge: Judged | None = None,
    ) -> SplitReport:
        """Write the parts of a model, the manifest last, or nothing at all.

        Args:
            model: The whole.
            parts: In the order in which they run.
            share: Whether all weights go into one store.
            progress: Called with bytes written so far and bytes in all, for one part after another.
            judge: Called with what the parts make and with the parts by name, as they will be read,
                before the first takes its place; what it raises refuses them.

        Raises:
            SaveError: They cannot be written, or something else has their names.
        """
        files = [*(part.file for part in parts), *([_STORE] if share else ())]
        for file in dict.fromkeys((*files, *self._before)):
            self._claim(file)
        path = self._folder / MANIFEST
        with ExitStack() as stack:
            stack.enter_context(made_folder(self._folder))
            swap = stack.enter_context(replacement(path))
            listing = swap.folder / MANIFEST
            manifest = _manifest(model, parts, self._folder, _STORE if share else "")
            write_manifest(manifest, listing)
            if share:
                shared = stack.enter_context(self._draft(_stored(model), _STORE, progress))
                self._clear(swap, files)
                store = swap.add(shared.commit())
                _refer([part.model for part in parts], load(store.path))
                drafts = self._drafts(stack, parts, progress)
            else:
                store = None
                drafts = self._drafts(stack, parts, progress)
                if judge is not None:
                    read = [draft.staged.load() for draft in drafts]
                    names = [part.name for part in parts]
                    judge(joined(manifest, read), dict(zip(names, read, strict=True)))
                self._clear(swap, files)
            saved = [swap.add(draft.commit()) for draft in drafts]
            swap.put(listing, path)
        reports = [told(p.name, p.model, each) for p, each in zip(parts, saved, strict=True)]
        return SplitReport(str(path), tuple(reports), store)

    def _claim(self, file: str) -> None:
        self._sources.refuse(self._folder / file)
        refuse_taken(self._folder / file, self._writing.force or file in self._before)

    def _draft(
        self, model: ir.Model, file: str, progress: Progress
    ) -> AbstractContextManager[Draft]:
        return drafted(model, self._folder / file, **ways(self._writing), progress=progress)

    def _drafts(
        self, stack: ExitStack, parts: Sequence[NamedPart], progress: Progress
    ) -> list[Draft]:
        """Write every part before the first is put in its place."""
        return [stack.enter_context(self._draft(part.model, part.file, progress)) for part in parts]

    def _clear(self, swap: Replacement, files: Sequence[str]) -> None:
        models = [self._folder / file for file in (*files, *self._before)]
        swap.set_aside(models, [self._folder / MANIFEST], self._sources)


def _stored(model: ir.Model) -> ir.Model:
    """Return all weights of a model as a model without nodes."""
    values = [
        ir.Value(name=value.name, type=value.type, shape=value.shape, const_value=value.const_value)
        for value in model.graph.initializers.values()
    ]
    graph = ir.Graph([], [], nodes=[], initializers=values, name="weights")
    graph.opset_imports.update(model.graph.opset_imports)
    return ir.Model(graph, ir_version=model.ir_version)


def _refer(parts: Sequence[ir.Model], store: ir.Model) -> None:
    """Let parts refer to the weights in a store instead of their own."""
    stored = store.graph.initializers
    for part in parts:
        for value in part.graph.initializers.values():
            value.const_value = stored[str(value.name)].const_value


def _manifest(model: ir.Model, parts: Sequence[NamedPart], folder: Path, store: str) -> Manifest:
    return Manifest(
        tuple(str(value.name) for value in model.graph.inputs),
        tuple(str(value.name) for value in model.graph.outputs),
        tuple(_described(part) for part in parts),
        folder,
        store,
    )


def _described(part: NamedPart) -> Part:
    graph = part.model.graph
    ends = (*graph.inputs, *graph.outputs)
    return Part(
        part.name,
        part.file,
        tuple(str(value.name) for value in graph.inputs),
        tuple(str(value.name) for value in graph.outputs),
        {str(value.name): describe_type(value) for value in ends},
        len(graph),
        weight_bytes(part.model),
    )
