"""Steps from a value to what it is made of, as walks over attention take them."""

from __future__ import annotations

from typing import TypeAlias

from onnx_ir import Node, SymbolicDim, Value

from vlmpass.ir_tools.graph.constants import constant_of
from vlmpass.ir_tools.graph.read_attributes import int_of
from vlmpass.ir_tools.rewrite import Declined, Tape, refuse

__all__ = [
    "Size",
    "alone",
    "axis_size",
    "elements",
    "integers",
    "last_part",
    "made_by",
    "number",
    "reshaped",
    "scaled",
]

Size: TypeAlias = "int | SymbolicDim"


def made_by(value: Value | None, *op_types: str) -> Node | None:
    """Return what produces a value, if that is one of these operators of the standard."""
    node = None if value is None else value.producer()
    return node if node is not None and not node.domain and node.op_type in op_types else None


def number(value: Value | None) -> float | None:
    """Return the number that a constant is, whatever its rank."""
    tensor = constant_of(value)
    return float(tensor.numpy().item()) if tensor is not None and tensor.size == 1 else None


def alone(value: Value) -> Value | Declined:
    """Return a value that has one user, or why it must stay."""
    if value.is_graph_output():
        return refuse("{} inside the match is an output of the graph", value)
    if len(value.uses()) > 1:
        users = [use.node for use in value.uses()]
        return refuse("{} is also used by {} ({})", value, users[-1], users[-1].op_type)
    return value


def scaled(value: Value | None) -> tuple[Value, float] | None:
    """Return what is multiplied with a number or divided by one, and the factor."""
    node = made_by(value, "Mul", "Div")
    if node is None:
        return None
    first, second = node.inputs
    factor = number(second)
    if factor is None and node.op_type == "Mul":
        first, factor = second, number(first)
    if first is None or not factor:
        return None
    return first, factor if node.op_type == "Mul" else 1 / factor


def last_part(value: Value) -> tuple[Value, range] | None:
    """Return of what a value is a part along the last axis, and which elements these are.

    Args:
        value: A Slice of constant bounds, or an output of a Split, along an axis of known size.
    """
    node = made_by(value, "Slice", "Split")
    source = None if node is None else node.inputs[0]
    if node is None or source is None or not source.shape:
        return None
    size, last = source.shape[-1], len(source.shape) - 1
    if not isinstance(size, int):
        return None
    if node.op_type == "Split":
        along = int_of(node, "axis", 0) in (-1, last)
        return (source, _of_split(node, value)) if along and _of_split(node, value) else None
    bounds = [integers(each) for each in node.inputs[1:]]
    if any(each is None or len(each) != 1 for each in bounds) or len(bounds) < 3:
        return None
    start, stop, axis, *step = [each[0] for each in bounds if each is not None]
    if axis not in (-1, last) or (step and step[0] < 1):
        return None
    return source, range(size)[start : stop : step[0] if step else 1]


def elements(value: Value) -> tuple[Value, range]:
    """Return of what rows a value has elements, and which, parts of parts included.

    Args:
        value: Of a last axis of known size; no elements are named where it is not.
    """
    size = value.shape[-1] if value.shape else None
    whole = range(size if isinstance(size, int) else 0)
    while (found := last_part(value)) is not None:
        value, row = found
        whole = row[whole.start : whole.stop : whole.step]
    return value, whole


def integers(value: Value | None) -> list[int] | None:
    """Return the integers that a small constant is, whatever its rank."""
    tensor = constant_of(value)
    if tensor is None or tensor.size > 8 or not tensor.dtype.is_integer():
        return None
    return [int(each) for each in tensor.numpy().ravel()]


def _of_split(node: Node, value: Value) -> range:
    """Return which elements of the last axis an output of a Split has; none if not known."""
    start = 0
    for output in node.outputs:
        size = output.shape[-1] if output.shape else None
        if not isinstance(size, int):
            break
        if output is value:
            return range(start, start + size)
        start += size
    return range(0)


def sizes_in(value: Value | None, deep: int = 6) -> list[Size] | None:
    """Return the sizes that a vector holds, put together from shapes and numbers.

    Args:
        value: A target of Reshape or Expand, or a part of one.
        deep: How many steps back are looked at.
    """
    numbers = integers(value)
    if numbers is not None:
        return list(numbers)
    node = made_by(value, "Concat", "Shape", "Squeeze", "Unsqueeze", "Identity", "Gather")
    first = None if node is None or not deep else node.inputs[0]
    if node is None or first is None:
        return None
    if node.op_type == "Shape":
        bounds = [int_of(node, name, None) for name in ("start", "end")]
        return None if first.shape is None else list(first.shape)[slice(*bounds)]
    if node.op_type == "Gather":
        held, at = sizes_in(first, deep - 1), integers(node.inputs[1])
        fits = held is not None and at is not None and len(at) == 1 and abs(at[0]) < len(held)
        return [held[at[0]]] if held is not None and at is not None and fits else None
    if node.op_type != "Concat":
        return sizes_in(first, deep - 1)
    parts = [sizes_in(each, deep - 1) for each in node.inputs]
    whole = [part for part in parts if part is not None]
    return [size for part in whole for size in part] if len(whole) == len(parts) else None


def reshaped(value: Value) -> list[Size] | None:
    """Return the shape that a Reshape gives, its target read where the shape is not known.

    Args:
        value: What a Reshape makes.
    """
    node, shape = made_by(value, "Reshape"), value.shape
    target = None if node is None else sizes_in(node.inputs[1])
    if shape is None or target is None or len(target) != len(shape):
        return None if shape is None else list(shape)
    known = [isinstance(size, int) or size.value is not None for size in shape]
    return [
        own if sure or size in (0, -1) else size
        for own, sure, size in zip(shape, known, target, strict=True)
    ]


def axis_size(op: Tape, value: Value, axis: int) -> Value:
    """Return the size of an axis, in a vector of one.

    Args:
        op: Records what it takes, at any opset.
        value: Whose axis.
        axis: Which.
    """
    return op.Gather(op.Shape(value), op.const([axis]))
