"""A PyTorch module as a model that was converted, and compared with the module itself."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from vlmpass.exporting_parts import modules_of, written_apart
from vlmpass.ir_tools.errors import ArgumentError, VlmpassError
from vlmpass.ir_tools.system.arguments import flag, shown, word, wrong
from vlmpass.ir_tools.system.listed import listed
from vlmpass.ir_tools.system.paths import folder_for, output_file
from vlmpass.passes.pipeline.base import Pass
from vlmpass.pipeline import Pipeline
from vlmpass.torch_exporters import EXPORTERS, Asked, cause, exported
from vlmpass.torch_judge import Judge
from vlmpass.torch_values import Call

if TYPE_CHECKING:
    import torch  # type: ignore[import-untyped,import-not-found,unused-ignore]

    from vlmpass.report import Report

__all__ = ["export"]


def export(
    module: torch.nn.Module,
    args: Sequence[object],
    path: str | os.PathLike[str],
    *,
    kwargs: Mapping[str, object] | None = None,
    dynamic: object = None,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    opset: int | str | None = None,
    target: str | None = None,
    pipeline: Pipeline | None = None,
    exporter: str = "dynamo",
    parts: Mapping[str, str] | None = None,
    force: bool = False,
) -> Report:
    """Export a PyTorch module, convert what came out and write it, if it computes what that does.

    The module runs on the arguments, and once more with every dynamic dimension of another size;
    the result runs on the same. It appears whole or not at all.

    Args:
        module: In evaluation mode, on the CPU.
        args: Its arguments, tensors and what is made of tensors.
        path: Of the result. A model that is there is replaced once the new one is complete. With
            `parts` it is a folder, as for `split`.
        kwargs: Arguments by name.
        dynamic: What `torch.export` calls dynamic shapes: for each argument the dimensions that
            vary, by axis.
        input_names, output_names: Of the model; by default the exporter's.
        opset: That of the result, ``auto`` or ``lowest``; by default the exporter's.
        target: What is to run it, see `vlmpass targets`; without one, nodes are made few.
        pipeline: What the result is to be, in place of an opset and a target.
        exporter: Of PyTorch: ``dynamo``, or ``torchscript``, the older one, which traces the module
            at opset 17: what the module decides by values is compared with other ones, too.
        parts: Modules in the module, such as ``{"vision": "model.vpm"}``, by the names of the files
            that they become: a part for each, and ``manifest.json``, which says what goes where.
            What is in none of them goes where it is first needed. What the files make together is
            compared with the module.
        force: Write over a file that is no ONNX model.

    Returns:
        As for `Pipeline.convert`; a note says at which sizes the module was compared, and how far
        off the result was.

    Raises:
        ArgumentError: An argument is of a wrong type.
        VlmpassError: PyTorch is missing or its exporter refuses the module, it is in training mode,
            the conversion is refused, or the result computes something else. Nothing was written.
    """
    if importlib.util.find_spec("torch") is None:
        raise VlmpassError("PyTorch is not installed", remedy="pip install 'vlmpass[torch]'")
    scopes = None if parts is None else modules_of(parts)
    place = output_file(path) if scopes is None else folder_for(path, "for the parts")
    converting = _pipeline(pipeline, opset, target)
    call = Call(_module(module), args, kwargs)
    _refuse_random(call)
    asked = Asked(_exporter(exporter), dynamic, input_names, output_names)
    rounded = _rounds(converting)
    with exported(call, asked) as (model, decided):
        if rounded:  # which would hide what the exporter did wrong
            Judge(call, model, rounded=False, decided=decided)(model)
        judge = Judge(call, model, rounded=rounded, decided=decided)
        if scopes is None:
            report = converting.convert(model, place, force=force, judge=judge)
        else:
            report = written_apart(converting, model, place, scopes, flag("force", force), judge)
    return replace(report, notes=(*report.notes, *judge.notes))


def _exporter(given: object) -> str:
    found = word("exporter", given)
    if found not in EXPORTERS:
        raise ArgumentError(f"exporter takes {listed(EXPORTERS)}, not {shown(given)}")
    return found


def _pipeline(given: Pipeline | None, opset: int | str | None, target: str | None) -> Pipeline:
    if given is None:
        return Pipeline(opset=opset, target=target, simplify=target is None)
    if not isinstance(given, Pipeline):
        raise wrong("pipeline", given, "a Pipeline")
    if opset is not None or target is not None:
        raise ArgumentError(
            "a pipeline says everything, and an opset or a target was given too",
            remedy="write Pipeline(opset=..., target=...)",
        )
    return given


def _rounds(pipeline: Pipeline) -> bool:
    passes = pipeline.passes if isinstance(pipeline.passes, tuple) else ()
    return pipeline.quantize is not None or any(
        isinstance(each, Pass) and each.rounds for each in passes
    )


def _module(given: object) -> torch.nn.Module:
    import torch

    if not isinstance(given, torch.nn.Module):
        raise wrong("module", given, "a torch.nn.Module")
    if given.training:
        raise VlmpassError(
            f"the {type(given).__name__} is in training mode, in which it may draw at random",
            remedy="call its eval() first",
        )
    return given


def _refuse_random(call: Call) -> None:
    try:
        runs = [call.outputs(call.tensors) for _ in range(2)]
    except Exception as error:
        told = cause(error)
        raise VlmpassError(f"the module does not run on its arguments: {told}") from error
    first, again = ([array.tobytes() for array in made] for made in runs)
    if first != again:
        raise VlmpassError(
            "the module gives other numbers when it runs once more, and cannot be compared",
            remedy="take what draws at random out of it, or keep its state in arguments",
        )
