"""What a parameter's annotation demands of what it captures."""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final, NewType

import numpy as np
import onnx_ir as ir

__all__ = [
    "ATTRIBUTE",
    "MISS",
    "NODE",
    "REST",
    "TENSOR",
    "VALUE",
    "FloatAttr",
    "Kind",
    "kind_of",
    "same",
]

FloatAttr = NewType("FloatAttr", ir.Attr)
"""A float, ready to be an attribute: in a function it may be a reference to what a call gives."""

_DTYPES: Final = frozenset(dtype.value for dtype in ir.DataType)


class _Miss:
    """Marks that something is not of the kind; None is a value like any other."""


MISS: Final = _Miss()


def _nothing(given: object) -> object:
    return MISS


@dataclass(frozen=True)
class Kind:
    """One sort of capture.

    Attributes:
        says: The sort, for messages: ``a constant float``.
        of_array: Makes a small constant one of this kind, or `MISS`; None where values of the
            graph are captured as they are.
        of_attribute: Makes an attribute's Python value one of this kind, or `MISS`.
        of_reference: Makes a reference to what the caller of a function gives one of this kind, or
            `MISS`; None where what is captured must be known.
        scalar: Whether a constant must be one number, whatever its rank.
        optional: Whether None is welcome.
        plain: Whether any value will do.
    """

    says: str
    of_array: Callable[[np.ndarray], object] | None = None
    of_attribute: Callable[[object], object] = _nothing
    of_reference: Callable[[ir.Attr], object] | None = None
    scalar: bool = False
    optional: bool = False
    plain: bool = False

    @cached_property
    def constant(self) -> bool:
        """Whether only a constant can be captured, as far as values go."""
        return self.of_array is not None or self.says == TENSOR.says


def _is_float(array: np.ndarray) -> bool:
    # ml_dtypes types such as bfloat16 are of kind V.
    return array.dtype.kind in "fV"


def _float_of_array(array: np.ndarray) -> object:
    return float(array.flat[0]) if _is_float(array) or array.dtype.kind in "iu" else MISS


def _float_of_attribute(given: object) -> object:
    return float(given) if isinstance(given, (int, float)) else MISS


def _float_attribute(given: object) -> object:
    return MISS if given is MISS else ir.AttrFloat32("value_float", typing.cast(float, given))


def _float_reference(given: ir.Attr) -> object:
    return given if given.type == ir.AttributeType.FLOAT else MISS


def _int_of_array(array: np.ndarray) -> object:
    return int(array.flat[0]) if array.dtype.kind in "iu" else MISS


def _bool_of_array(array: np.ndarray) -> object:
    return bool(array.flat[0]) if array.dtype.kind == "b" else MISS


def _bool_of_attribute(given: object) -> object:
    return bool(given) if isinstance(given, int) and given in (0, 1) else MISS


def _ints_of_array(array: np.ndarray) -> object:
    fits = array.dtype.kind in "iu" and array.ndim <= 1
    return tuple(array.tolist() if array.ndim else [array.item()]) if fits else MISS


def _floats_of_array(array: np.ndarray) -> object:
    fits = _is_float(array) and array.ndim <= 1
    return tuple(map(float, array.ravel().tolist())) if fits else MISS


def _all(sort: type) -> Callable[[object], object]:
    def check(given: object) -> object:
        if isinstance(given, sort):
            return (given,)
        if not isinstance(given, Sequence):
            return MISS
        for part in given:
            if not isinstance(part, sort):
                return MISS
        return tuple(given)

    return check


def _just(sort: type) -> Callable[[object], object]:
    return lambda given: given if isinstance(given, sort) else MISS


def _dtype_of_attribute(given: object) -> object:
    return ir.DataType(given) if isinstance(given, int) and given in _DTYPES else MISS


def _tensor_of_attribute(given: object) -> object:
    return given if isinstance(given, ir.TensorProtocol) else MISS


VALUE: Final = Kind("a value", plain=True)
REST: Final = Kind("values")
NODE: Final = Kind("a node")
TENSOR: Final = Kind("a constant tensor", of_attribute=_tensor_of_attribute)

ATTRIBUTE: Final = Kind("an attribute")

_KINDS: dict[object, Kind] = {
    ir.Value: VALUE,
    ir.Node: NODE,
    ir.TensorProtocol: TENSOR,
    float: Kind("a constant float", _float_of_array, _float_of_attribute, scalar=True),
    int: Kind("a constant int", _int_of_array, _just(int), scalar=True),
    bool: Kind("a constant bool", _bool_of_array, _bool_of_attribute, scalar=True),
    str: Kind("a text", of_attribute=_just(str)),
    tuple[int, ...]: Kind("a constant list of ints", _ints_of_array, _all(int)),
    tuple[float, ...]: Kind("a constant list of floats", _floats_of_array, _all(float)),
    tuple[str, ...]: Kind("a list of texts", of_attribute=_all(str)),
    np.ndarray: Kind("a small constant", lambda array: array),
    ir.DataType: Kind("an element type", of_attribute=_dtype_of_attribute),
    ir.Graph: Kind("a graph", of_attribute=_just(ir.Graph)),
    ir.Attr: ATTRIBUTE,
    FloatAttr: Kind(
        "a constant float",
        lambda array: _float_attribute(_float_of_array(array)),
        lambda given: _float_attribute(_float_of_attribute(given)),
        _float_reference,
        scalar=True,
    ),
    tuple[ir.Value, ...]: REST,
    tuple[ir.Value | None, ...]: replace(REST, optional=True),
}


def kind_of(annotation: object) -> Kind | None:
    """Return what an annotation demands; None for one that captures cannot have."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        parts = [part for part in typing.get_args(annotation) if part is not type(None)]
        if len(parts) != 1 or len(parts) == len(typing.get_args(annotation)):
            return None
        kind = kind_of(parts[0])
        return None if kind is None else replace(kind, optional=True)
    return _KINDS.get(annotation)


def same(one: object, other: object) -> bool:
    """Return whether two captures under one name are the same thing."""
    if one is other:
        return True
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(one, other)
    if isinstance(one, ir.Attr) and isinstance(other, ir.Attr):  # which do not compare references
        return one.value == other.value and one.ref_attr_name == other.ref_attr_name
    return isinstance(one, (int, float, str, tuple)) and one == other
