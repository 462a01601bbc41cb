"""Which tensors of a model lie outside the model file, each set of equal bytes taken once."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

import onnx_ir as ir

from vlmpass.ir_tools.errors import SaveError
from vlmpass.ir_tools.graph.walk import TensorSlot, scopes, tensor_slots
from vlmpass.ir_tools.save.layout import Layout
from vlmpass.ir_tools.weights import FileRange, Weight, as_weight
from vlmpass.ir_tools.weights.leaves import Stored

__all__ = ["Content", "Part", "Placed", "collect", "name_of", "source_of"]

_INLINE_BELOW = 1024
_SHAPE_LIKE_ELEMENTS = 1024


@dataclass(frozen=True)
class Content:
    """Bytes for a data file.

    Attributes:
        where: The first place that uses them, for messages.
        name: Of the tensor there.
        nbytes: How many.
        weight: What yields them, unless a range of a file does.
        source: Where they lie now, if they do so unchanged.
    """

    where: str
    name: str
    nbytes: int
    weight: Weight
    source: FileRange | None


@dataclass(frozen=True)
class Part(Content):
    """Bytes that lie in a data file once, whoever uses them.

    Attributes:
        data_file: The data file they lie in now; a model file that holds them within is none.
    """

    data_file: str | None


@dataclass(frozen=True)
class Placed:
    """A tensor of the model, and the number of the part it lies in if that is outside."""

    slot: TensorSlot
    part: int | None


def _is_shape_like(tensor: ir.TensorProtocol) -> bool:
    return (
        tensor.dtype in (ir.DataType.INT64, ir.DataType.INT32)
        and len(tensor.shape) <= 1
        and tensor.size <= _SHAPE_LIKE_ELEMENTS
    )


def _goes_out(slot: TensorSlot) -> bool:
    tensor = slot.tensor
    if tensor.dtype == ir.DataType.STRING or tensor.nbytes < _INLINE_BELOW:
        return False
    if slot.value is None:
        # Kernels read other tensor attributes themselves, and only from the model file unless
        # whoever wrote the source knew better.
        return isinstance(tensor, ir.ExternalTensor)
    return not _is_shape_like(tensor)


def source_of(weight: Weight) -> FileRange | None:
    """Return where the bytes of a weight lie in a data file or within a model file, if they do."""
    expression = weight.expression
    return expression.file_range if isinstance(expression, Stored) else None


def _identity(weight: Weight, source: FileRange | None) -> Hashable:
    expression = weight.expression
    if source is not None and isinstance(expression, Stored):
        # The same bytes of a file are the same whatever type and shape they are read as.
        return source, expression.stamp
    return expression


def name_of(slot: TensorSlot) -> str:
    """Return the name of the value that a tensor is, or its place if it is none."""
    return (slot.value and slot.value.name) or slot.where


def _part(slot: TensorSlot, weight: Weight, source: FileRange | None) -> Part:
    nbytes = source.length if source else weight.nbytes
    kept = weight.file_range() if source else None
    return Part(slot.where, name_of(slot), nbytes, weight, source, kept.path if kept else None)


def _refuse_missing(model: ir.Model) -> None:
    for scope in scopes(model):
        for name, value in scope.initializers.items():
            if value.const_value is None:
                raise SaveError(
                    f"initializer {name} has no data", remedy="set them, or make it an input"
                )


def collect(model: ir.Model, layout: Layout) -> tuple[list[Placed], list[Part]]:
    """Return every tensor, in the model's order, and the parts that hold those that go outside.

    Tied weights, the same tensor in two places and equal expressions are held once.

    Args:
        model: Any model; nothing is read and nothing changed.
        layout: Of the output; nothing goes outside if it is inline.

    Raises:
        SaveError: An initializer has no data.
    """
    _refuse_missing(model)
    tensors: list[Placed] = []
    parts: list[Part] = []
    numbers: dict[Hashable, int] = {}
    for slot in tensor_slots(model):
        if layout is Layout.INLINE or not _goes_out(slot):
            tensors.append(Placed(slot, None))
            continue
        weight = as_weight(slot.tensor)
        source = source_of(weight)
        number = numbers.setdefault(_identity(weight, source), len(parts))
        if number == len(parts):
            parts.append(_part(slot, weight, source))
        tensors.append(Placed(slot, number))
    return tensors, parts
