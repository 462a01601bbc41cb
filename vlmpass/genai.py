"""Folders of ONNX Runtime GenAI: every model that their configuration names, in its own place."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import onnx_ir as ir

from vlmpass.ir_tools.errors import ModelError, VerifyError
from vlmpass.ir_tools.load import load
from vlmpass.ir_tools.system.arguments import wrong
from vlmpass.ir_tools.system.paths import model_file, path_text
from vlmpass.pipeline import Pipeline
from vlmpass.report import Report

__all__ = ["convert_genai"]

CONFIG = "genai_config.json"

_Ends: TypeAlias = "dict[str, str]"


def convert_genai(folder: str | os.PathLike[str], pipeline: Pipeline) -> dict[str, Report]:
    """Convert the models of a folder of ONNX Runtime GenAI, each in the place of its source.

    All are written and judged before the first takes its place. Names of inputs and outputs, by
    which the configuration knows them, stay; what one model gives and another takes still has one
    type. The configuration itself needs no change.

    Args:
        folder: That of a ``genai_config.json``.
        pipeline: What the results are to be.

    Returns:
        A report for each file, by the name that the configuration has for it.

    Raises:
        ModelError: There is no configuration, or it names no model that is there.
        VlmpassError: A conversion is refused, or the models would no longer fit together; the
            folder is as it was.
    """
    if not isinstance(pipeline, Pipeline):
        raise wrong("pipeline", pipeline, "a Pipeline")
    root = Path(path_text(folder, ModelError, "the folder"))
    names = _named(root)
    run = _Conversion(root, pipeline, {each: _ends(load(root / each)) for each in names})
    run.convert(names)
    return {each: run.reports[each] for each in names}


class _Conversion:
    """Conversions of which none takes its place before all are judged.

    Args:
        root: The folder.
        pipeline: What the results are to be.
        before: Inputs and outputs of every model.
    """

    def __init__(
        self, root: Path, pipeline: Pipeline, before: Mapping[str, tuple[_Ends, _Ends]]
    ) -> None:
        self._root, self._pipeline, self._before = root, pipeline, before
        self._after: dict[str, tuple[_Ends, _Ends]] = {}
        self.reports: dict[str, Report] = {}

    def convert(self, names: Sequence[str]) -> None:
        """Convert the first of some models, and the others while it waits for its place."""
        if not names:
            self._refuse_unfit()
            return
        first, path = names[0], self._root / names[0]

        def judge(result: ir.Model) -> None:
            self._after[first] = _ends(result)
            self._refuse_renamed(first)
            self.convert(names[1:])

        self.reports[first] = self._pipeline.convert(path, path, judge=judge)

    def _refuse_renamed(self, name: str) -> None:
        for what, old, new in zip(
            ("inputs", "outputs"), self._before[name], self._after[name], strict=True
        ):
            if old.keys() != new.keys():
                gone = ", ".join(sorted(old.keys() ^ new.keys()))
                raise VerifyError(
                    f"{name} would have other {what} than {CONFIG} knows: {gone}",
                    remedy="leave out the passes that change them",
                )

    def _refuse_unfit(self) -> None:
        for giver, (_, given) in self._before.items():
            for taker, (taken, _) in self._before.items():
                for end in sorted(given.keys() & taken.keys()) if giver != taker else ():
                    kinds = self._after[giver][1][end], self._after[taker][0][end]
                    if given[end] == taken[end] and kinds[0] != kinds[1]:
                        raise VerifyError(
                            f"{giver} would give '{end}' as {kinds[0]}, and {taker} takes"
                            f" {kinds[1]}",
                            remedy="keep the types of inputs and outputs, as with keep_io",
                        )


def _ends(model: ir.Model) -> tuple[_Ends, _Ends]:
    """Return the types of inputs and outputs by name."""
    graph = model.graph
    inputs, outputs = (
        {str(value.name): str(value.type) for value in values}
        for values in (graph.inputs, graph.outputs)
    )
    return inputs, outputs


def _named(root: Path) -> list[str]:
    """Return the names of the models that a configuration names, as it writes them."""
    path = root / CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ModelError(f"{path} is no JSON: {error}") from error
    names = list(dict.fromkeys(_file_names(config)))
    if not names:
        raise ModelError(f"{path} names no model", remedy="it names them as filename")
    for each in names:
        if os.path.isabs(each) or os.pardir in Path(each).parts:
            raise ModelError(f"{path} names '{each}', which lies outside its folder")
        model_file(root / each)
    return names


def _file_names(config: object) -> Iterator[str]:
    if isinstance(config, dict):
        name = config.get("filename")
        if isinstance(name, str) and name:
            yield name
        for each in config.values():
            yield from _file_names(each)
    elif isinstance(config, list):
        for each in config:
            yield from _file_names(each)
