"""What is checked on every tensor of a proto: its data are there once, and of the right size."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import onnx
import onnx_ir as ir

from vlmpass.ir_tools.errors import ModelError
from vlmpass.ir_tools.operators.schema import numbered_type
from vlmpass.ir_tools.system.listed import listed
from vlmpass.ir_tools.weights.packing import packed_size

__all__ = [
    "Reference",
    "TensorVet",
    "is_plain",
    "refuse_repeated",
    "refuse_unknown_type",
    "vet_extents",
]

_Type = ir.DataType
_FIELDS = (
    "raw_data",
    "float_data",
    "int32_data",
    "int64_data",
    "double_data",
    "uint64_data",
    "string_data",
)
_MOST_AXES = 64  # of an array of numpy
_MOST_BYTES = (1 << 63) - 1
_SIX_BITS = (_Type.FLOAT6E2M3, _Type.FLOAT6E3M2)
_TYPED_FIELD = {
    _Type.FLOAT: "float_data",
    _Type.COMPLEX64: "float_data",
    _Type.DOUBLE: "double_data",
    _Type.COMPLEX128: "double_data",
    _Type.INT64: "int64_data",
    _Type.UINT32: "uint64_data",
    _Type.UINT64: "uint64_data",
}


@dataclass(frozen=True)
class Reference:
    """What a tensor says about data outside of it, as onnx_ir passes it on."""

    location: str
    offset: int | None
    length: int | None


def vet_extents(dims: Iterable[int], width: int, where: str) -> None:
    """Refuse a shape that no array can have.

    Args:
        dims: The extents that are known; where one is 0, the others still count.
        width: Bits of an element.
        where: What has that shape, for messages.

    Raises:
        ModelError: It has too many axes, or too many elements to be addressed.
    """
    dims = list(dims)
    if len(dims) > _MOST_AXES:
        raise ModelError(
            f"{where} has {len(dims)} axes, more than the {_MOST_AXES} that an array can have",
            remedy="export the model again",
        )
    if math.prod(dim for dim in dims if dim > 0) * width > 8 * _MOST_BYTES:
        raise ModelError(
            f"{where} has the shape {dims}, more than any memory can hold",
            remedy="export the model again",
        )


def refuse_repeated(entries: Iterable[onnx.StringStringEntryProto], where: str) -> None:
    """Refuse metadata that say two things under one key, of which one would be kept.

    Raises:
        ModelError: Naming the key.
    """
    seen: dict[str, str] = {}
    for entry in entries:
        if seen.setdefault(entry.key, entry.value) != entry.value:
            raise ModelError(
                f"{where} has two values for the metadata {entry.key}", remedy="remove one of them"
            )


@dataclass
class TensorVet:
    """Checks tensors one by one.

    Attributes:
        checksums: Of the references that have one, which onnx_ir forgets.
    """

    checksums: dict[Reference, str] = field(default_factory=dict)

    def check(self, tensor: onnx.TensorProto, where: str) -> None:
        """Refuse a tensor whose data are missing, ambiguous or of the wrong size.

        Raises:
            ModelError: Naming the tensor.
        """
        if is_plain(tensor):
            return
        dtype = _dtype(tensor, where)
        if tensor.HasField("segment"):
            raise ModelError(f"{where} is a segment of a tensor, which cannot be kept")
        if min(tensor.dims, default=0) < 0:
            raise ModelError(f"{where} has a negative extent in its shape {list(tensor.dims)}")
        vet_extents(tensor.dims, 8 if dtype == _Type.STRING else dtype.bitwidth, where)
        if tensor.metadata_props:
            refuse_repeated(tensor.metadata_props, where)
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            self._check_reference(tensor, dtype, where)
        else:
            _check_inline(tensor, dtype, where)

    def _check_reference(self, tensor: onnx.TensorProto, dtype: ir.DataType, where: str) -> None:
        if dtype == _Type.STRING:
            raise ModelError(f"{where} holds strings, which cannot lie in a data file")
        if any(_is_set(tensor, name) for name in _FIELDS):
            raise ModelError(
                f"{where} has data in a file and others in the model", remedy="remove one of them"
            )
        entries: dict[str, str] = {}
        for entry in tensor.external_data:
            if entry.key in entries:
                raise ModelError(f"{where} states the {entry.key} of its data twice")
            entries[entry.key] = entry.value
        checksum = entries.pop("checksum", None)
        entries.pop("basepath", None)  # where onnx.helper put the file; not part of the reference
        reference = Reference(
            entries.pop("location", ""),
            _number(entries.pop("offset", None), f"offset of {where}"),
            _number(entries.pop("length", None), f"length of {where}"),
        )
        if entries:
            stated = listed(key or "(no name)" for key in sorted(entries))
            raise ModelError(
                f"{where} states {stated} of its data, which cannot be kept",
                remedy="export it again, for ONNX Runtime without prepacked weights",
            )
        if not reference.location:
            raise ModelError(f"{where} is external but names no file")
        size = packed_size(dtype, math.prod(tensor.dims))
        # ONNX Runtime takes a length of 0 for the rest of the file.
        if reference.length and reference.length != size:
            raise ModelError(
                f"{where} is {dtype}{list(tensor.dims)}, {size} bytes, but has "
                f"{reference.length} bytes of data",
                remedy="export it again",
            )
        if checksum is not None:
            self.checksums[reference] = checksum


def is_plain(tensor: onnx.TensorProto) -> bool:
    """Whether a tensor is like most: its elements are whole bytes, all there, and nothing else is.

    What is not may be sound as well.
    """
    dims: Sequence[int] = ()
    width, raw = None, None
    for field_, value in tensor.ListFields():
        number = field_.number
        if number == onnx.TensorProto.DIMS_FIELD_NUMBER:
            dims = value
        elif number == onnx.TensorProto.DATA_TYPE_FIELD_NUMBER:
            width = _BYTES.get(value)
        elif number == onnx.TensorProto.RAW_DATA_FIELD_NUMBER:
            raw = value
        elif number not in _NAMES:
            return False
    if raw is None or width is None or len(dims) > _MOST_AXES or min(dims, default=1) < 1:
        return False
    return math.prod(dims) * width == len(raw)


_BYTES = {
    dtype.value: dtype.bitwidth // 8
    for dtype in _Type
    if dtype not in (_Type.STRING, _Type.UNDEFINED) and dtype.bitwidth % 8 == 0
}
_NAMES = (onnx.TensorProto.NAME_FIELD_NUMBER, onnx.TensorProto.DOC_STRING_FIELD_NUMBER)


def _dtype(tensor: onnx.TensorProto, where: str) -> ir.DataType:
    if tensor.data_type == _Type.UNDEFINED:
        raise ModelError(f"{where} has no element type", remedy="export it again")
    refuse_unknown_type(tensor.data_type, where)
    return _Type(tensor.data_type)


def refuse_unknown_type(number: int, where: str) -> None:
    """Refuse an element type that the installed onnx_ir does not know.

    Raises:
        ModelError: It does not.
    """
    if numbered_type(number) is None:
        raise ModelError(
            f"{where} has element type {number}, which is unknown",
            remedy="install newer onnx and onnx-ir, or export it again",
        )


def _number(text: str | None, where: str) -> int | None:
    if text is None:
        return None
    if not (text.isascii() and text.isdigit()):
        raise ModelError(f"the {where} is {text!r}, not a number of bytes")
    return int(text)


def _check_inline(tensor: onnx.TensorProto, dtype: ir.DataType, where: str) -> None:
    size = math.prod(tensor.dims)
    if tensor.external_data:
        raise ModelError(
            f"{where} refers to data in a file and says that they are in the model",
            remedy="set its data_location to EXTERNAL, or clear its external_data",
        )
    used = [name for name in _FIELDS if _is_set(tensor, name)]
    if len(used) > 1:
        raise ModelError(f"{where} holds data in {used[0]} and in {used[1]}")
    if dtype == _Type.STRING:
        if used not in ([], ["string_data"]):
            raise ModelError(f"{where} holds strings but has its data in {used[0]}")
        found, need, unit = len(tensor.string_data), size, "strings"
    else:
        name = used[0] if used else "raw_data"
        found, need, unit = len(getattr(tensor, name)), packed_size(dtype, size), "bytes"
        if name != "raw_data":
            need, unit = _typed_count(dtype, size, name, where), "values"
    if found != need:
        raise ModelError(
            f"{where} is {dtype}{list(tensor.dims)} and needs {need} {unit}, but has {found}",
            remedy="export it again",
        )
    if dtype in _SIX_BITS and (odd := [n for n in tensor.int32_data if not 0 <= n < 64]):
        raise ModelError(
            f"{where} holds {odd[0]}, which {dtype} has no bits for", remedy="export it again"
        )


def _is_set(tensor: onnx.TensorProto, name: str) -> bool:
    return tensor.HasField(name) if name == "raw_data" else len(getattr(tensor, name)) > 0


def _typed_count(dtype: ir.DataType, size: int, name: str, where: str) -> int:
    expected = _TYPED_FIELD.get(dtype, "int32_data")
    if name != expected:
        raise ModelError(f"{where} is {dtype} but has its data in {name}, not in {expected}")
    if dtype in (_Type.COMPLEX64, _Type.COMPLEX128):
        return 2 * size
    # 2 and 4-bit elements share an int32 as they share a byte; 6-bit ones have one each
    return packed_size(dtype, size) if dtype.bitwidth in (2, 4) else size
