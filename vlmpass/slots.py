"""What takes the place of other simplifiers: exporters that call those need one changed import."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import overload

import onnx
import onnx_ir as ir

from vlmpass.ir_tools.errors import ArgumentError, VerifyError
from vlmpass.ir_tools.graph.walk import tensor_slots
from vlmpass.ir_tools.load import load
from vlmpass.ir_tools.load.source import Source
from vlmpass.ir_tools.system.arguments import flag, number, word, wrong
from vlmpass.ir_tools.system.listed import listed
from vlmpass.passes.dims.set_dims import SetDims
from vlmpass.pipeline import Pipeline

__all__ = ["InputShapes", "fitting_layout", "simplify", "slim"]

InputShapes = Mapping[str, Sequence[int]] | Sequence[str] | Sequence[int]
"""Sizes of inputs: by name, as ``["x:1,3,224,224"]``, or the sizes alone where there is one."""

_LOG = logging.getLogger("vlmpass")
_INLINE_BYTES = 1_900_000_000
"""Weights up to here go into the model file, which a protobuf can hold with its graph."""
_DTYPES = {"fp16": "float16", "fp32": "float32"}


@overload
def slim(
    model: ir.Model,
    output_model: None = None,
    *,
    input_shapes: InputShapes | None = None,
    dtype: str | None = None,
    model_check: bool = False,
    save_as_external_data: bool = False,
    verbose: bool = False,
) -> ir.Model: ...


@overload
def slim(
    model: str | os.PathLike[str] | onnx.ModelProto,
    output_model: None = None,
    *,
    input_shapes: InputShapes | None = None,
    dtype: str | None = None,
    model_check: bool = False,
    save_as_external_data: bool = False,
    verbose: bool = False,
) -> onnx.ModelProto: ...


@overload
def slim(
    model: Source,
    output_model: str | os.PathLike[str],
    *,
    input_shapes: InputShapes | None = None,
    dtype: str | None = None,
    model_check: bool = False,
    save_as_external_data: bool = False,
    verbose: bool = False,
) -> None: ...


def slim(
    model: Source,
    output_model: str | os.PathLike[str] | None = None,
    *,
    input_shapes: InputShapes | None = None,
    dtype: str | None = None,
    model_check: bool = False,
    save_as_external_data: bool = False,
    verbose: bool = False,
) -> onnx.ModelProto | ir.Model | None:
    """Simplify a model, called as ``onnxslim.slim`` is called.

    Args:
        model: A path, or anything that `load` takes; it stays as it is.
        output_model: Where to write the result, which appears whole or not at all.
        input_shapes: Sizes to fix; -1 leaves an axis as it is.
        dtype: ``fp16`` or ``fp32``, or what `Pipeline` takes.
        model_check: Run the source and the result, and compare every output.
        save_as_external_data: Write weights beside the model file, as those of more than 2 GB are.
        verbose: Log the report.

    Returns:
        None if it was written, an `ir.Model` for one, and a `ModelProto` for all else.

    Raises:
        VlmpassError: It cannot be done right; nothing was written.
    """
    checked, beside = flag("model_check", model_check), flag("external data", save_as_external_data)
    shown = flag("verbose", verbose)
    narrow = word("dtype", dtype)
    pipeline = Pipeline(simplify=True, dtype=_DTYPES.get(narrow, narrow) if narrow else None)
    sized = _sized(model, input_shapes)
    if output_model is None:
        report = pipeline.run(sized, verify=checked)
    else:
        layout = "default" if beside else fitting_layout(load(sized))
        verify = True if checked else None
        report = pipeline.convert(sized, output_model, layout=layout, verify=verify)
    if shown:
        _LOG.info("%s", report)
    if output_model is not None:
        return None
    return report.model if isinstance(model, ir.Model) else report.proto()


def simplify(
    model: Source, check_n: int = 0, *, overwrite_input_shapes: InputShapes | None = None
) -> tuple[onnx.ModelProto | ir.Model, bool]:
    """Simplify a model, called as ``onnxsim.simplify`` is called.

    Args:
        model: A path, or anything that `load` takes; it stays as it is.
        check_n: Above 0, the source and the result are run, and every output is compared.
        overwrite_input_shapes: Sizes to fix; -1 leaves an axis as it is.

    Returns:
        The result, an `ir.Model` for one and a `ModelProto` for all else, and whether it computes
        what the source computes; if not, the source itself comes back.

    Raises:
        VlmpassError: It cannot be done right.
    """
    wanted = bool(number("check_n", check_n, 0))
    sized = _sized(model, overwrite_input_shapes)
    held = isinstance(model, ir.Model)
    try:
        report = Pipeline(simplify=True).run(sized, verify=wanted)
    except VerifyError:
        source = Pipeline("").run(sized)
        return (source.model if held else source.proto()), False
    return (report.model if held else report.proto()), True


def fitting_layout(model: ir.Model) -> str:
    """Return the layout of one file where a protobuf holds the weights, else that of many."""
    nbytes = sum(slot.tensor.nbytes for slot in tensor_slots(model))
    return "default" if nbytes > _INLINE_BYTES else "inline"


def _sized(model: Source, shapes: InputShapes | None) -> Source:
    """Return a model whose inputs have given sizes."""
    if shapes is None:
        return model
    opened = load(model)
    dims = tuple(_dims(opened, shapes))
    return Pipeline([SetDims(dims)]).run(opened).model if dims else model


def _dims(model: ir.Model, shapes: InputShapes) -> Iterator[tuple[str, int]]:
    """Yield what is to be set: a place such as x:0, and its size."""
    inputs = {each.name: each for each in model.graph.inputs}
    for name, sizes in _by_name(shapes, [name for name in inputs if name]):
        if name not in inputs:
            raise ArgumentError(f"input_shapes: no input is called {name}, but {listed(inputs)}")
        shape = inputs[name].shape
        if shape is not None and len(shape) != len(sizes):
            raise ArgumentError(f"input_shapes: {name} has {len(shape)} axes, not {len(sizes)}")
        for axis, size in enumerate(sizes):
            if size >= 0 and (shape is None or shape[axis] != size):
                yield f"{name}:{axis}", size


def _by_name(shapes: InputShapes, inputs: Sequence[str]) -> Iterator[tuple[str, list[int]]]:
    takes = "sizes by input, such as {'x': [1, 3, 224, 224]}"
    given: list[tuple[str, Sequence[int | str]]]
    if isinstance(shapes, Mapping):
        given = list(shapes.items())
    elif isinstance(shapes, (str, bytes)) or not isinstance(shapes, Sequence):
        raise wrong("input_shapes", shapes, takes)
    elif all(isinstance(each, str) and ":" in each for each in shapes):
        pairs = (str(each).rsplit(":", 1) for each in shapes)
        given = [(name, sizes.split(",")) for name, sizes in pairs]
    else:
        given = [(inputs[0], shapes)] if len(inputs) == 1 else []
    if not given:
        raise ArgumentError(f"input_shapes takes {takes}; the model has {listed(inputs)}")
    for name, sizes in given:
        yield name, _sizes(f"input_shapes of {name}", sizes)


def _sizes(name: str, given: object) -> list[int]:
    """Return sizes that are given as numbers, or as text between commas.

    Raises:
        ArgumentError: They are none.
    """
    refusal = wrong(name, given, "a list of integers from -1 on")
    if isinstance(given, (str, bytes, Mapping)) or not isinstance(given, Iterable):
        raise refusal
    try:
        sizes = [number(name, int(n) if isinstance(n, str) else n, -1) for n in given]
    except ValueError:  # a text that is no number
        raise refusal from None
    found = [size for size in sizes if size is not None and size < 1 << 63]
    if len(found) < len(sizes):
        raise refusal
    return found
