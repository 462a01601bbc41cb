"""A model in memory as a file that a runtime can open, its weights left where they lie."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from vlmpass.ir_tools.errors import VerifyError
from vlmpass.ir_tools.graph.walk import scopes
from vlmpass.ir_tools.proto.proto_view import inline, skeleton
from vlmpass.ir_tools.run.addition import NOTHING, Addition
from vlmpass.ir_tools.weights import as_weight, file_range

__all__ = ["Staged", "stage"]

_SMALL = 1024
_COMPUTED = "computed"
_ALIGNMENT = 64


@dataclass(frozen=True)
class Staged:
    """A model as a file.

    Attributes:
        path: The file.
        files: The real path of each data file by the name that the model refers to it by.
        nbytes: Bytes of the tensors that lie in data files.
        largest: Of these, bytes of the largest.
    """

    path: str
    files: Mapping[str, str]
    nbytes: int
    largest: int = 0


class _Stager:
    """Decides for each tensor whether it goes into the file, is referred to or is evaluated."""

    def __init__(self, model: ir.Model, folder: Path, inline_limit: int | None) -> None:
        self._in_functions = _in_functions(model)
        self._in_subgraphs = _in_subgraphs(model)
        self.files: dict[str, str] = {}
        self.nbytes = self.largest = 0
        self._aliases: dict[str, str] = {}
        self._folder = folder
        self._inline_limit = inline_limit
        self._inlined = 0

    def stand_in(self, tensor: ir.TensorProtocol) -> ir.TensorProtocol:
        """Return what is serialised in place of a tensor."""
        if self._inline_limit is not None:
            self._inlined += tensor.nbytes
            if self._inlined > self._inline_limit:
                raise VerifyError(
                    f"weights above {self._inline_limit / 1e9:g} GB are too large for the"
                    " reference evaluator and for IREE, which hold them in memory"
                )
            return inline(tensor)
        small = tensor.nbytes <= _SMALL or tensor.dtype is ir.DataType.STRING
        if small or id(tensor) in self._in_functions:
            return inline(tensor)
        where = file_range(tensor)
        if where is None or id(tensor) in self._in_subgraphs:
            return self._evaluate(tensor)
        alias = self._aliases.setdefault(where.path, f"file{len(self._aliases)}")
        self.files[alias] = where.path
        return self._refer(tensor, alias, where.offset)

    def _refer(self, tensor: ir.TensorProtocol, name: str, offset: int) -> ir.TensorProtocol:
        self.nbytes += tensor.nbytes
        self.largest = max(self.largest, tensor.nbytes)
        return ir.ExternalTensor(
            name,
            offset,
            tensor.nbytes,
            tensor.dtype,
            shape=ir.Shape(tensor.shape.numpy()),
            name=tensor.name or "",
        )

    def _evaluate(self, tensor: ir.TensorProtocol) -> ir.TensorProtocol:
        path = self._folder / _COMPUTED
        with path.open("ab") as file:
            file.seek(0, 2)
            file.write(b"\0" * (-file.tell() % _ALIGNMENT))
            offset = file.tell()
            for chunk in as_weight(tensor).chunks():
                file.write(chunk)
        # On disk under this name for subgraphs, and lent as all must be as soon as one file is.
        self.files[_COMPUTED] = str(path)
        return self._refer(tensor, _COMPUTED, offset)


def _in_subgraphs(model: ir.Model) -> set[int]:
    """Return the identities of tensors of subgraphs; ONNX Runtime looks for these on disk too."""
    found: set[int] = set()
    for scope in scopes(model):
        if scope.depth and not scope.in_function:
            found |= {id(value.const_value) for value in scope.initializers.values()}
            found |= _tensors(each for node in scope.graph for each in node.attributes.values())
    return found


def _tensors(attributes: Iterable[ir.Attr]) -> set[int]:
    return {id(each.value) for each in attributes if each.type == ir.AttributeType.TENSOR}


def _in_functions(model: ir.Model) -> set[int]:
    """Return the identities of tensors of functions and of calls.

    ONNX Runtime looks for these on disk, whatever files it is lent.
    """
    if not model.functions:
        return set()
    attributes = [each for f in model.functions.values() for each in f.attributes.values()]
    for scope in scopes(model):
        for node in scope.graph:
            if scope.in_function or node.op_identifier() in model.functions:
                attributes += node.attributes.values()
    return _tensors(attributes)


def stage(
    model: ir.Model, folder: Path, *, inline_limit: int | None = None, more: Addition = NOTHING
) -> Staged:
    """Write a model so that a runtime can open it.

    Args:
        model: Left unchanged.
        folder: An empty folder for the file and for weights that must be evaluated first.
        inline_limit: Put all tensors into the file, up to this many bytes, instead of referring
            to them.
        more: What its graph computes besides.

    Raises:
        VerifyError: If the tensors to be put into the file are larger than the limit.
    """
    stager = _Stager(model, folder, inline_limit)
    path = folder / "model.onnx"
    proto = skeleton(model, stager.stand_in)
    with path.open("wb") as file:
        file.writelines(more.woven_into(proto))
    return Staged(str(path), stager.files, stager.nbytes, stager.largest)
