"""Replacing the external tensors of a model by weights that are checked against their files."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Protocol

import onnx_ir as ir

from vlmpass.ir_tools.errors import ModelError
from vlmpass.ir_tools.graph.walk import TensorSlot, tensor_slots
from vlmpass.ir_tools.load.external import DataFolder
from vlmpass.ir_tools.load.parse import Parsed
from vlmpass.ir_tools.load.small_tensors import SmallTensors
from vlmpass.ir_tools.load.tensors import Reference
from vlmpass.ir_tools.weights import LazyWeight, StoredWeight, Weight, as_weight
from vlmpass.ir_tools.weights.leaves import Stored
from vlmpass.ir_tools.weights.packing import packed_size

__all__ = ["IrPlaces", "ProtoPlaces", "settle"]


class Places(Protocol):
    """Knows where the data of external tensors are."""

    def note(self, tensor: ir.ExternalTensor) -> None:
        """Take note of a tensor before any is looked up."""

    def weight(self, tensor: ir.ExternalTensor, where: str) -> Weight:
        """Return the tensor as a weight, or raise ModelError."""


def settle(model: ir.Model, places: Places) -> None:
    """Replace every external tensor of a model, or none of them, and make arrays of small ones.

    Raises:
        ModelError: The data of one are missing, too short or outside.
    """
    slots: list[TensorSlot] = []
    in_protos: list[TensorSlot] = []
    for slot in tensor_slots(model):
        if _is_unsettled(slot.tensor):
            slots.append(slot)
            places.note(_external(slot))
        elif _is_kind(type(slot.tensor), ir.TensorProtoTensor):
            in_protos.append(slot)
    settled: dict[int, ir.TensorProtocol] = {}
    for slot in slots:
        if id(slot.tensor) not in settled:
            settled[id(slot.tensor)] = places.weight(_external(slot), slot.where)
    for slot in slots:
        slot.replace(settled[id(slot.tensor)])
    _hold_small(in_protos)


def _is_unsettled(tensor: ir.TensorProtocol) -> bool:
    return _is_kind(type(tensor), ir.ExternalTensor) and not isinstance(tensor, StoredWeight)


@cache
def _is_kind(kind: type, base: type) -> bool:
    return issubclass(kind, base)  # slow: the bases of tensors include a protocol


def _external(slot: TensorSlot) -> ir.ExternalTensor:
    assert isinstance(slot.tensor, ir.ExternalTensor)
    return slot.tensor


def _hold_small(slots: Iterable[TensorSlot]) -> None:
    """Take small tensors, and those with metadata, out of the protobuf that they were parsed into.

    onnx_ir writes the metadata of such a tensor twice, and decodes it anew at every look.
    """
    small = SmallTensors()
    held: dict[int, ir.TensorProtocol | None] = {}
    for slot in slots:
        tensor = slot.tensor
        assert isinstance(tensor, ir.TensorProtoTensor)
        if id(tensor) not in held:
            array = small.tensor(tensor.raw)
            other = as_weight(tensor) if tensor.metadata_props else None
            held[id(tensor)] = other if array is None else array
        new = held[id(tensor)]
        if new is not None:
            slot.replace(new)


class ProtoPlaces:
    """Places of a model that was parsed from a proto.

    Args:
        parsed: The model.
        folder: What locations are relative to.
        checksums: Of the references that have one.
    """

    def __init__(self, parsed: Parsed, folder: Path, checksums: Mapping[Reference, str]) -> None:
        self._parsed = parsed
        self._checksums = checksums
        self._folder = DataFolder(folder, parsed.path)

    def note(self, tensor: ir.ExternalTensor) -> None:
        """Note how much of its file it needs."""
        _note(self._folder, tensor)

    def weight(self, tensor: ir.ExternalTensor, where: str) -> Weight:
        """Look in the model file itself, or in its folder."""
        parsed = self._parsed
        if parsed.inline_location and tensor.location == parsed.inline_location:
            return _inline(parsed, tensor)
        reference = Reference(os.fspath(tensor.location), tensor.offset, tensor.length)
        return _stored(self._folder, tensor, where, self._checksums.get(reference))


class IrPlaces:
    """Places of a model that is IR already: every tensor names its folder."""

    def __init__(self) -> None:
        self._folders: dict[str, DataFolder] = {}

    def note(self, tensor: ir.ExternalTensor) -> None:
        """Note how much of its file it needs."""
        _note(self._folder(tensor), tensor)

    def weight(self, tensor: ir.ExternalTensor, where: str) -> Weight:
        """Look in the folder that the tensor names."""
        return _stored(self._folder(tensor), tensor, where, None)

    def _folder(self, tensor: ir.ExternalTensor) -> DataFolder:
        base = os.fspath(tensor.base_dir)
        if base not in self._folders:
            self._folders[base] = DataFolder(Path(base))
        return self._folders[base]


def _nbytes(tensor: ir.ExternalTensor) -> int:
    return packed_size(tensor.dtype, math.prod(tensor.shape.numpy()))


def _note(folder: DataFolder, tensor: ir.ExternalTensor) -> None:
    location = os.fspath(tensor.location)
    end = (tensor.offset or 0) + _nbytes(tensor)
    folder.needs[location] = max(folder.needs.get(location, 0), end)


def _inline(parsed: Parsed, tensor: ir.ExternalTensor) -> Weight:
    assert parsed.stamp is not None  # there is a file, or nothing would have been left in it
    shape = tuple(tensor.shape.numpy())
    stored = Stored(tensor.dtype, shape, parsed.path, parsed.stamp, tensor.offset or 0, inline=True)
    return LazyWeight(
        stored,
        name=tensor.name,
        doc_string=tensor.doc_string,
        metadata_props=dict(tensor.metadata_props),
    )


def _stored(
    folder: DataFolder, tensor: ir.ExternalTensor, where: str, checksum: str | None
) -> StoredWeight:
    location = os.fspath(tensor.location)
    file = folder.find(location, where)
    size = _nbytes(tensor)
    offset = tensor.offset or 0
    folder.check_fits(file, offset, size, where)
    rest = file.stamp.size - offset
    if tensor.offset is None and tensor.length is None and rest != size:
        raise ModelError(
            f"{where} is {tensor.dtype}{tensor.shape}, {size} bytes, but takes the whole of "
            f"{file.location}, {rest} bytes",
            remedy="export the model again",
        )
    return StoredWeight(
        file.location,
        tensor.offset,
        tensor.length or (None if tensor.length is None else size),
        tensor.dtype,
        shape=tensor.shape,
        name=tensor.name,
        base_dir=folder.absolute,
        checksum=checksum,
        doc_string=tensor.doc_string,
        metadata_props=dict(tensor.metadata_props),
        path=file.path,
        stamp=file.stamp,
    )
