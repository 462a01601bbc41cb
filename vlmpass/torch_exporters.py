"""PyTorch's two exporters, and what they leave to the pass `substitute`."""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import onnx_ir as ir

from vlmpass.ir_tools.errors import ModelError, VlmpassError
from vlmpass.ir_tools.graph.walk import all_nodes
from vlmpass.ir_tools.load import load
from vlmpass.ir_tools.system.arguments import shown
from vlmpass.pipeline import Pipeline
from vlmpass.torch_traced import axes_of, flat_module, forget_traced, input_names
from vlmpass.torch_translations import LEFT, translations
from vlmpass.torch_values import Call

__all__ = ["EXPORTERS", "Asked", "cause", "exported"]

EXPORTERS = ("dynamo", "torchscript")
_TRACED_OPSET = 17
"""What the older exporter knows best; the pipeline goes on from there."""


@dataclass(frozen=True)
class Asked:
    """What an exporter is asked for besides the call.

    Attributes:
        exporter: One of `EXPORTERS`.
        dynamic: What `torch.export` calls dynamic shapes.
        input_names, output_names: Of the model; None for the exporter's.
    """

    exporter: str
    dynamic: object
    input_names: Sequence[str] | None
    output_names: Sequence[str] | None


@contextmanager
def exported(call: Call, asked: Asked) -> Iterator[tuple[ir.Model, tuple[str, ...]]]:
    """Yield what PyTorch's exporter makes of a call, and what it took for constant.

    Files that the model lies in go at the end.

    Raises:
        ArgumentError: What varies does not fit the arguments.
        VlmpassError: The exporter refuses the module, or leaves behind what nothing stands for.
    """
    if asked.exporter == "dynamo":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = _by_dynamo(call, asked)
        yield model, ()
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "traced.onnx"
        decided = _trace(call, asked, path)
        model = load(path)
        if asked.dynamic is not None:
            forget_traced(model)
        for value in list(model.graph.initializers.values()):  # as the module names them
            value.name = str(value.name).removeprefix("module.")
        yield Pipeline("substitute").run(model).model, decided


def _by_dynamo(call: Call, asked: Asked) -> ir.Model:
    program = _run(
        call,
        call.module,
        call.args(),
        kwargs=call.kwargs(),
        dynamo=True,
        verbose=False,
        dynamic_shapes=cast(Any, asked.dynamic),
        custom_translation_table=translations(),
        input_names=asked.input_names,
        output_names=asked.output_names,
    )
    model = getattr(program, "model", None)
    if not isinstance(model, ir.Model):
        raise ModelError(f"PyTorch's exporter gives {shown(model)} in place of a model")
    left = any(node.domain == LEFT for node in all_nodes(model))
    return Pipeline("substitute").run(model).model if left else model


def _trace(call: Call, asked: Asked, path: Path) -> tuple[str, ...]:
    """Write what the older exporter makes; what it has no translation for stays as it is called.

    Returns:
        Where the module's code decides by values, which a trace does not follow.
    """
    names = list(asked.input_names or input_names(call))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        _write_trace(call, asked, names, path)
    decided = [each for each in told if each.category.__name__ == "TracerWarning"]
    return tuple(dict.fromkeys(f"{Path(each.filename).name}:{each.lineno}" for each in decided))


def _write_trace(call: Call, asked: Asked, names: Sequence[str], path: Path) -> None:
    import torch  # type: ignore[import-untyped,import-not-found,unused-ignore]

    kinds = cast(Any, torch.onnx).OperatorExportTypes
    _run(
        call,
        flat_module(call),
        tuple(each.detach().clone() for each in call.tensors),
        path,
        dynamo=False,
        opset_version=_TRACED_OPSET,
        operator_export_type=kinds.ONNX_FALLTHROUGH,
        input_names=names,
        output_names=asked.output_names,
        dynamic_axes=dict(zip(names, axes_of(call, names, asked.dynamic), strict=False)),
    )


def _run(call: Call, *given: Any, **asked: Any) -> object:
    import torch

    heard = logging.getLogger("torch.onnx")
    level = heard.level
    heard.setLevel(logging.ERROR)  # what matters of it comes as an error
    try:
        return cast(Any, torch.onnx.export)(*given, **asked)
    except Exception as error:
        raise VlmpassError(
            f"PyTorch's exporter does not take the {type(call.module).__name__}: {cause(error)}"
        ) from error
    finally:
        heard.setLevel(level)


def cause(error: BaseException) -> str:
    """Return the first line of what is at the bottom of an error, with its kind."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
