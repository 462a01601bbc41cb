"""Submodels: one cut out, a whole cut up into parts, and parts joined again."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx_ir as ir

from vlmpass.acceptance import fault_of
from vlmpass.convert_options import Writing
from vlmpass.ir_tools.check import check
from vlmpass.ir_tools.errors import CheckError, PipelineError
from vlmpass.ir_tools.load import load
from vlmpass.ir_tools.load.source import Source
from vlmpass.ir_tools.parts.composing import composed
from vlmpass.ir_tools.parts.lift import Lifter
from vlmpass.ir_tools.parts.manifest import MANIFEST, Manifest, manifest_of
from vlmpass.ir_tools.parts.scoping import scoping
from vlmpass.ir_tools.parts.selection import between, closed, partition
from vlmpass.ir_tools.parts.splitting import Places, by_layers, by_scopes, by_weight
from vlmpass.ir_tools.save import parse_size, save
from vlmpass.ir_tools.save.layout import Layout, Weights
from vlmpass.ir_tools.system.arguments import a_list, callable_or_none, flag, number, word
from vlmpass.ir_tools.system.paths import folder_for, output_file
from vlmpass.options import helped
from vlmpass.part_reports import PartReport, SplitReport
from vlmpass.parts_folder import Judged, NamedPart, PartsFolder, Progress, told, ways
from vlmpass.replacing import Sources, refuse_foreign

__all__ = ["compose", "extract", "split", "write_scopes"]

_UNFIT = re.compile(r"[^\w.-]+")
_LONGEST = 60
"""Characters of a part's name that its file has."""


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
    progress: Progress = None,
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
        SaveError: The source, or what is no model, is in the way.
    """
    inputs, outputs = a_list("inputs", inputs, str), a_list("outputs", outputs, str)
    scope = word("scope", scope)
    if scope is not None and (inputs or outputs):
        raise PipelineError(
            "a scope has its own inputs and outputs", remedy="leave --scope or the names out"
        )
    if scope is None and not inputs and not outputs:
        raise PipelineError("nothing is asked for", remedy="give --inputs, --outputs or --scope")
    writing = Writing(shard_size=shard_size, layout=layout, weights=weights, jobs=jobs, force=force)
    callable_or_none("progress", progress)
    _refuse(output_file(path), Sources(source), writing)
    model = load(source)
    if scope is not None:
        modules = scoping(model)
        found = closed(model, modules.inside(modules.find(scope)))
    else:
        found = between(model, inputs, outputs)
    piece = Lifter(model).lift(found, "extract")
    _hold(piece, model)
    return told("", piece, save(piece, path, **ways(writing), progress=progress))


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
    progress: Progress = None,
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
        SaveError: Something that is no part of a split before is in the way.
    """
    writing = Writing(shard_size=shard_size, layout=layout, weights=weights, jobs=jobs, force=force)
    scopes, layers = a_list("scopes", scopes, str), number("layers", layers, 1)
    share = flag("share", share)
    callable_or_none("progress", progress)
    if [bool(scopes), layers is not None, budget is not None].count(True) != 1:
        raise PipelineError(
            "a model is split by scopes, by layers or by a budget", remedy="give one of them"
        )
    place = PartsFolder(folder_for(folder, "for the parts"), Sources(source), writing)
    model = load(source)
    lifter = Lifter(model)
    if budget is not None:
        places = by_weight(model, lifter.typing, parse_size(budget))
    else:
        places = by_scopes(model, scopes) if layers is None else by_layers(model, layers)
    return place.write(model, _held_parts(lifter, places), share, progress)


def write_scopes(
    model: ir.Model,
    folder: Path,
    scopes: Mapping[str, str],
    force: bool,
    judge: Judged,
) -> SplitReport:
    """Write modules of a model as parts into a folder, all of them or none, as `split` does.

    Args:
        model: The whole; it stays as it is.
        folder: Made where it does not exist.
        scopes: Modules by the names that the parts have.
        force: As for `split`.
        judge: Called with what the parts make and the parts, before the first takes its place.

    Raises:
        ModelError: A module is not there, or two need each other.
        VlmpassError: As for `split`, and what the judge raises.
    """
    place = PartsFolder(folder, Sources(), Writing(force=force))
    places = by_scopes(model, list(scopes.values()))
    names = {scope: name for name, scope in scopes.items()}
    told = Places(tuple(names[scope] for scope in places.names), places.of)
    return place.write(model, _held_parts(Lifter(model), told), False, None, judge)


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
    progress: Progress = None,
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
        SaveError: One of the parts, or what is no model, is in the way.
    """
    writing = Writing(shard_size=shard_size, layout=layout, weights=weights, jobs=jobs, force=force)
    callable_or_none("progress", progress)
    target = output_file(path)
    found = manifest_of(parts)
    files = [found.folder / each for each in (*found.files, MANIFEST)]
    _refuse(target, Sources(parts, *files), writing)
    whole = composed(found)
    _hold(whole, *(load(found.path_of(part)) for part in found.parts))
    return told("", whole, save(whole, path, **ways(writing), progress=progress))


def _refuse(target: Path, sources: Sources, writing: Writing) -> None:
    sources.refuse(target)
    refuse_foreign(target, writing.force)


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


def _held_parts(lifter: Lifter, places: Places) -> list[NamedPart]:
    named = _parts(lifter, places)
    for part in named:
        _hold(part.model, lifter.model)
    return named


def _parts(lifter: Lifter, places: Places) -> list[NamedPart]:
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
        NamedPart(name, f"{index:0{digits}}-{_file_stem(name)}.onnx", lifter.lift(part, "split"))
        for index, (name, part) in enumerate(zip(places.names, found, strict=True), 1)
    ]


def _file_stem(name: str) -> str:
    return _UNFIT.sub("_", name)[:_LONGEST]
