"""Types as the schemas spell them: `tensor(float)`, `seq(tensor(int64))`, and onnx_ir's objects.

A text compares, hashes and looks up in a schema's list of admitted types in no time; the objects
are for everything else.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

__all__ = ["dtype_of", "element", "parse", "sequence_of", "spell", "tensor", "with_dtypes"]

_SPELLED: dict[ir.DataType, str] = {
    dtype: dtype.name.lower() for dtype in ir.DataType if dtype is not ir.DataType.UNDEFINED
}
_TENSOR: dict[ir.DataType, str] = {dtype: f"tensor({name})" for dtype, name in _SPELLED.items()}
_DTYPE: dict[str, ir.DataType] = {name: dtype for dtype, name in _SPELLED.items()}
_DTYPE_OF_TENSOR: dict[str, ir.DataType] = {text: dtype for dtype, text in _TENSOR.items()}


def tensor(dtype: ir.DataType | int) -> str:
    """Return `tensor(…)` of an element type."""
    return _TENSOR[ir.DataType(dtype)]


def sequence_of(text: str) -> str:
    """Return `seq(…)` of a type."""
    return f"seq({text})"


def element(text: str) -> str | None:
    """Return what a sequence or an optional holds; None for any other type."""
    for wrapper in ("seq(", "optional("):
        if text.startswith(wrapper):
            return text[len(wrapper) : -1]
    return None


def dtype_of(text: str) -> ir.DataType | None:
    """Return the element type of a tensor type; None for sequences, optionals and maps."""
    return _DTYPE_OF_TENSOR.get(text)


def spell(kind: ir.TypeProtocol | None) -> str | None:
    """Return the text of a type object; None where a type is absent or undefined."""
    if kind is None:
        return None
    if isinstance(kind, ir.TensorType):
        return _TENSOR.get(kind.dtype)
    if isinstance(kind, ir.SparseTensorType):
        return f"sparse_tensor({_SPELLED[kind.dtype]})" if kind.dtype in _SPELLED else None
    if not isinstance(kind, (ir.SequenceType, ir.OptionalType)):
        return None
    inner = spell(kind.elem_type)
    if inner is None:
        return None
    return f"seq({inner})" if isinstance(kind, ir.SequenceType) else f"optional({inner})"


def parse(text: str) -> ir.TypeProtocol | None:
    """Return a new type object for a text; None for a map, which onnx_ir cannot say."""
    if text.startswith("tensor("):
        return ir.TensorType(_DTYPE[text[7:-1]])
    if text.startswith("sparse_tensor("):
        return ir.SparseTensorType(_DTYPE[text[14:-1]])
    held = element(text)
    inner = parse(held) if held is not None else None
    if inner is None:
        return None
    return ir.SequenceType(inner) if text.startswith("seq(") else ir.OptionalType(inner)


def with_dtypes(text: str, mapping: Mapping[ir.DataType, ir.DataType]) -> str:
    """Return the same structure with element types replaced where the mapping names them."""
    head, _, rest = text.rpartition("(")
    name = rest.rstrip(")")
    dtype = _DTYPE.get(name)
    if dtype is None or dtype not in mapping:
        return text
    return f"{head}({_SPELLED[mapping[dtype]]}{rest[len(name) :]}"
