"""Submodels: one cut out, a whole cut up into parts, and parts joined again."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, TypedDict

import onnx_ir as ir

from vlmpass.acceptance import fault_of
from vlmpass.convert_options import Writing
from vlmpass.ir_tools.check import check
from vlmpass.ir_tools.errors import CheckError, PipelineError, SaveError
from vlmpass.ir_tools.graph.describe import describe_type
from vlmpass.ir_tools.graph.walk import weight_bytes
from vlmpass.ir_tools.load import load
from vlmpass.ir_tools.load.source import Source
from vlmpass.ir_tools.parts.composing import composed
from vlmpass.ir_tools.parts.lift import Lifter
from vlmpass.ir_tools.parts.manifest import (
    MANIFEST,
    Manifest,
    Part,
    is_manifest,
    read_manifest,
    write_manifest,
)
from vlmpass.ir_tools.parts.scoping import scoping
from vlmpass.ir_tools.parts.selection import between, closed, partition
from vlmpass.ir_tools.parts.splitting import Places, by_layers, by_scopes, by_weight
from vlmpass.ir_tools.save import SaveReport, parse_size, save
from vlmpass.ir_tools.save.commits import note_commit
from vlmpass.ir_tools.save.layout import Layout, Weights
from vlmpass.ir_tools.save.saving import drafted
from vlmpass.ir_tools.system.arguments import number
from vlmpass.ir_tools.system.paths import folder_for, output_file
from vlmpass.options import helped
from vlmpass.part_reports import PartReport, SplitReport
from vlmpass.pipeline import refuse_foreign

__all__ = ["compose", "extract", "split"]

_STORE = "weights.onnx"
_Progress: TypeAlias = "Callable[[int, int], None] | None"
_UNFIT = re.compile(r"[^\w.-]+")


@helped(Writing)
def extract(
    source: Source,
    path: str | os.PathLike[str],
    *,
    inputs: Sequence[str] = (),
    outputs: Sequence[str] = (),
    scope: str | None = None,
    shard_size: int | str | None = None,
    layout: Layout | str = "default",
    weights: Weights = "auto",
    jobs: int | None = None,
    force: bool = False,
    progress: _Progress = None,
) -> PartReport:
    """Write a part of a model as a model: what lies between some values, or a module.

    It has the weights and functions that it needs and no others; its inputs and outputs have the
    types and shapes that follow from the source's.

    Args:
        source: A path, or anything that `load` takes; it stays as it is.
        path: Of the result.
        inputs: Names of values that are given instead of computed; a weight may be one. Without
            any, what the outputs need of the model's inputs.
        outputs: Names of values that are wanted; without any, the model's outputs that depend on
            the inputs.
        scope: Instead of them, a module of the exported program, such as ``vpm``.
        shard_size, layout, weights, jobs, force: See `ConvertOptions`.
        progress: Called with bytes written so far and bytes in all.

    Raises:
        ArgumentError: An argument is of a wrong type.
        PipelineError: Nothing was asked for, or two things that do not go together.
        ModelError: There is no such value or module, or an input is missing.
        Refused: The type of a value at the border is not known.
        CheckError: The part is not valid, as the source is not.
    """
    if scope is not None and (inputs or outputs):
        raise PipelineError(
            "a scope has its own inputs and outputs", remedy="leave --scope or the names out"
        )
    if scope is None and not inputs and not outputs:
        raise PipelineError("nothing is asked for", remedy="give --inputs, --outputs or --scope")
    writing = Writing(shard_size=shard_size, layout=layout, weights=weights, jobs=jobs, force=force)
    refuse_foreign(output_file(path), writing.force)
    model = load(source)
    if scope is not None:
        modules = scoping(model)
        found = closed(model, modules.inside(modules.find(scope)))
    else:
        found = between(model, inputs, outputs)
    piece = Lifter(model).lift(found, "extract")
    _hold(piece, model)
    return _told("", piece, save(piece, path, **_ways(writing), progress=progress))


@helped(Writing)
def split(
    source: Source,
    folder: str | os.PathLike[str],
    *,
    scopes: Sequence[str] = (),
    layers: int | None = None,
    budget: int | str | None = None,
    share: bool = False,
    shard_size: int | str | None = None,
    layout: Layout | str = "default",
    weights: Weights = "auto",
    jobs: int | None = None,
    force: bool = False,
    progress: _Progress = None,
) -> SplitReport:
    """Cut a model up into parts that run one after the other, and write them into a folder.

    Every part has its own weights only, and typed inputs and outputs; ``manifest.json`` says what
    goes where. `run_parts` runs them, `compose` joins them again. All files appear, the manifest
    last, or none.

    Args:
        source: A path, or anything that `load` takes; it stays as it is.
        folder: Where the parts go; it is made where it does not exist. With ``weights="keep"`` the
            source's data files lie in it or below it.
        scopes: A part for each of these modules; the rest goes where it is first needed.
        layers: Instead, parts of so many layers: outermost modules that are numbered.
        budget: Instead, parts in the order of the graph with at most so many bytes of weights.
        share: Write every weight once, into one store that all parts refer to.
        shard_size, layout, weights, jobs, force: See `ConvertOptions`.
        progress: Called with bytes written so far and bytes in all, for one part after the other.

    Raises:
        ArgumentError: An argument is of a wrong type.
        PipelineError: Nothing was asked for, or two things that do not go together.
        ModelError: A module is not there, or two need each other.
        Refused: The type of a value at a border is not known.
        CheckError: A part is not valid, as the source is not.
        SaveError: Something else is in the way.
    """
    writing = Writing(shard_size=shard_size, layout=layout, weights=weights, jobs=jobs, force=force)
    layers = number("layers", layers, 1)
    if [bool(scopes), layers is not None, budget is not None].count(True) != 1:
        raise PipelineError(
            "a model is split by scopes, by layers or by a budget", remedy="give one of them"
        )
    target = folder_for(folder, "for the parts")
    _refuse_manifest(target / MANIFEST, writing.force)
    model = load(source)
    lifter = Lifter(model)
    if budget is not None:
        places = by_weight(model, lifter.typing, parse_size(budget))
    else:
        places = by_scopes(model, scopes) if layers is None else by_layers(model, layers)
    named = _parts(lifter, places)
    for part in named:
        _hold(part.model, model)
    with ExitStack() as undo:
        _make_folder(undo, target)
        store = None
        if share:
            store = _stored(undo, model, target / _STORE, _ways(writing), progress)
            _refer([part.model for part in named], load(store.path))
        reports = _written(named, target, _ways(writing), progress)
        path = write_manifest(_manifest(model, named, target))
        undo.pop_all()
    note_commit(path)
    return SplitReport(str(path), reports, store)


@helped(Writing)
def compose(
    parts: str | os.PathLike[str] | Manifest,
    path: str | os.PathLike[str],
    *,
    shard_size: int | str | None = None,
    layout: Layout | str = "default",
    weights: Weights = "auto",
    jobs: int | None = None,
    force: bool = False,
    progress: _Progress = None,
) -> PartReport:
    """Join parts to one model, whatever its size.

    Names are as they were before the split; parts may have been converted since, as long as they
    fit each other.

    Args:
        parts: What `split` made: its folder, or the manifest in it.
        path: Of the result.
        shard_size, layout, weights, jobs, force: See `ConvertOptions`.
        progress: Called with bytes written so far and bytes in all.

    Raises:
        ArgumentError: An argument is of a wrong type.
        ModelError: There is no manifest, or the parts do not fit.
        CheckError: What they make is not valid.
    """
    writing = Writing(shard_size=shard_size, layout=layout, weights=weights, jobs=jobs, force=force)
    refuse_foreign(output_file(path), writing.force)
    found = parts if isinstance(parts, Manifest) else read_manifest(parts)
    whole = composed(found)
    _hold(whole, *(load(found.path_of(part)) for part in found.parts))
    return _told("", whole, save(whole, path, **_ways(writing), progress=progress))


@dataclass(frozen=True)
class _Named:
    name: str
    file: str
    model: ir.Model


class _Ways(TypedDict):
    shard_size: int | str | None
    layout: Layout | str
    weights: Weights
    jobs: int | None


def _ways(writing: Writing) -> _Ways:
    return {
        "shard_size": writing.shard_size,
        "layout": writing.layout,
        "weights": writing.weights,
        "jobs": writing.jobs,
    }


def _told(name: str, model: ir.Model, saved: SaveReport) -> PartReport:
    graph = model.graph
    types = [
        {str(value.name): describe_type(value) for value in values}
        for values in (graph.inputs, graph.outputs)
    ]
    return PartReport(name, len(graph), types[0], types[1], weight_bytes(model), saved)


def _hold(made: ir.Model, *sources: ir.Model) -> None:
    """Hold what was made to the full check.

    Raises:
        CheckError: It does not pass; where what it was made of does not either, that is said.
    """
    try:
        check(made)
    except CheckError as error:
        if fault := next(filter(None, map(fault_of, sources)), ""):
            error.problem = f"the source is not valid itself: {fault}"
        raise


def _parts(lifter: Lifter, places: Places) -> list[_Named]:
    """Return the parts as models, with all that the whole has and nobody takes in the first one."""
    graph = lifter.model.graph
    found = partition(lifter.model, places.of, len(places.names))
    taken = {value for part in found for value in (*part.inputs, *part.initializers)}
    first = found[0]
    first.inputs.update(dict.fromkeys(value for value in graph.inputs if value not in taken))
    idle = [value for value in graph.initializers.values() if value not in taken]
    first.initializers.update(dict.fromkeys(idle))
    for value in graph.outputs:
        if value.producer() is None and not value.is_graph_input():
            home = next(part for part in found if value in part.initializers)
            home.outputs[value] = None
    digits = max(2, len(str(len(found))))
    return [
        _Named(name, f"{index:0{digits}}-{_UNFIT.sub('_', name)}.onnx", lifter.lift(part, "split"))
        for index, (name, part) in enumerate(zip(places.names, found, strict=True), 1)
    ]


def _refuse_manifest(path: Path, force: bool) -> None:
    if path.exists() and not force and not is_manifest(path):
        raise SaveError(f"{path} exists and is no manifest of parts", remedy="--force replaces it")


def _make_folder(stack: ExitStack, folder: Path) -> None:
    """Make a folder where there is none; it goes again where nothing comes into it."""
    for each in reversed([folder, *folder.absolute().parents]):
        if not each.exists():
            each.mkdir()
            stack.callback(_remove_empty, each)


def _remove_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()


def _stored(
    stack: ExitStack,
    model: ir.Model,
    path: Path,
    ways: _Ways,
    progress: _Progress,
) -> SaveReport:
    """Write all weights of a model once, as a model without nodes."""
    values = [
        ir.Value(name=value.name, type=value.type, shape=value.shape, const_value=value.const_value)
        for value in model.graph.initializers.values()
    ]
    graph = ir.Graph([], [], nodes=[], initializers=values, name="weights")
    graph.opset_imports.update(model.graph.opset_imports)
    there = path.exists()
    store = ir.Model(graph, ir_version=model.ir_version)
    saved = save(store, path, **ways, progress=progress)
    for file in saved.files if not there else ():
        if file.how != "kept":
            stack.callback(_remove, path.parent / file.name)
    return saved


def _written(
    named: Sequence[_Named], folder: Path, ways: _Ways, progress: _Progress
) -> tuple[PartReport, ...]:
    """Write every part before the first is put in its place."""
    with ExitStack() as stack:
        drafts = [
            stack.enter_context(drafted(each.model, folder / each.file, **ways, progress=progress))
            for each in named
        ]
        return tuple(
            _told(each.name, each.model, draft.commit())
            for each, draft in zip(named, drafts, strict=True)
        )


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)


def _refer(parts: Sequence[ir.Model], store: ir.Model) -> None:
    """Let parts refer to the weights in a store instead of their own."""
    stored = store.graph.initializers
    for part in parts:
        for value in part.graph.initializers.values():
            value.const_value = stored[str(value.name)].const_value


def _manifest(model: ir.Model, named: Sequence[_Named], folder: Path) -> Manifest:
    return Manifest(
        tuple(str(value.name) for value in model.graph.inputs),
        tuple(str(value.name) for value in model.graph.outputs),
        tuple(_described(part) for part in named),
        folder,
    )


def _described(part: _Named) -> Part:
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
