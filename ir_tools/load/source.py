"""The one way in: whatever holds a model becomes an ir.Model that is whole and safe to read."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Protocol, TypeAlias, runtime_checkable

import onnx
import onnx_ir as ir

from vlmpass.ir_tools.errors import ArgumentError, ModelError
from vlmpass.ir_tools.graph.walk import scopes
from vlmpass.ir_tools.load.deserialize import deserialized
from vlmpass.ir_tools.load.lost import refuse_lost
from vlmpass.ir_tools.load.parse import Parsed, parse_file
from vlmpass.ir_tools.load.resolve_external import IrPlaces, ProtoPlaces, settle
from vlmpass.ir_tools.load.sparse import with_dense_constants
from vlmpass.ir_tools.load.tensors import TensorVet
from vlmpass.ir_tools.load.validate import vet
from vlmpass.ir_tools.system.collector import without_collector
from vlmpass.ir_tools.system.paths import model_file, path_text

__all__ = ["Source", "load"]


@runtime_checkable
class _HoldsModel(Protocol):
    """A torch ONNXProgram, for one."""

    @property
    def model(self) -> ir.Model: ...


Source: TypeAlias = "str | os.PathLike[str] | onnx.ModelProto | ir.Model | _HoldsModel"


def load(source: Source, *, base_dir: str | os.PathLike[str] | None = None) -> ir.Model:
    """Open a model; weights stay where they are.

    External tensors, also in subgraphs, functions and attributes, become `StoredWeight`s, each
    checked against its file. In files of 8 MiB and more, inline tensors of 64 KiB and more stay in
    the file too, which must then not change while the model is in use.

    Args:
        source: A path (`.onnx`, `.textproto`, `.onnxtxt`, `.json` and their kin by suffix), a
            ModelProto, an ir.Model (returned itself, its external tensors replaced), or anything
            with a `.model` that is one, such as a torch ONNXProgram.
        base_dir: The folder that external data of a ModelProto are relative to; the current one if
            not given. A path brings its own, and an ir.Model's tensors theirs.

    Raises:
        ArgumentError: `base_dir` is no path.
        ModelError: It is no model, refers to data that are missing, too short, or outside of its
            folder, or has something that could not be kept.
    """
    folder = Path("" if base_dir is None else path_text(base_dir, ArgumentError, "base_dir"))
    if isinstance(source, (str, os.PathLike)):
        path = model_file(source)
        return _from_proto(parse_file(path), path.parent)
    if isinstance(source, onnx.ModelProto):
        return _from_proto(Parsed(source), folder)
    if isinstance(source, ir.Model):
        return _from_ir(source)
    model = getattr(source, "model", None)
    if isinstance(model, ir.Model):
        return _from_ir(model)
    raise ModelError(
        f"a {type(source).__name__} is not a model",
        remedy="give a path, an onnx.ModelProto, an onnx_ir.Model or a torch ONNXProgram",
    )


@without_collector
def _from_proto(parsed: Parsed, folder: Path) -> ir.Model:
    tensors = TensorVet()
    refuse_lost(parsed.proto, owned=bool(parsed.path))
    parsed = replace(parsed, proto=with_dense_constants(parsed.proto, owned=bool(parsed.path)))
    vet(parsed.proto, tensors)
    model = deserialized(parsed.proto)
    settle(model, ProtoPlaces(parsed, folder, tensors.checksums))
    return model


def _from_ir(model: ir.Model) -> ir.Model:
    for scope in scopes(model):
        for name, value in scope.initializers.items():
            if value.const_value is None:
                raise ModelError(f"initializer {name} has no data", remedy="load its weights first")
    settle(model, IrPlaces())
    return model
