"""What an adapter may ask about a node, and the few ways it builds one like it.

Every question either has its answer or refuses the node with the reason; none guesses.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from vlmpass.ir_tools.errors import INFER_FIRST
from vlmpass.ir_tools.graph.constants import constant_of, source_of
from vlmpass.ir_tools.graph.tape import Tape
from vlmpass.ir_tools.operators.schema import Schema, history, named_type, schema
from vlmpass.rewriter_rules.opset.table import HIGHER, CannotConvert

__all__ = [
    "WANTED",
    "again",
    "attribute",
    "bind_types",
    "constant",
    "dims",
    "dtype",
    "integer",
    "integers",
    "known",
    "known_or_none",
    "listed",
    "operand",
    "operands",
    "optional_input",
    "rank",
    "real",
    "static",
    "text",
    "used",
]

_LARGEST_CONSTANT = 1 << 20
"""Bytes above which a constant is a weight, which is never read to decide about a rewrite."""


def attribute(node: ir.Node, name: str) -> ir.Attr | None:
    """Return an attribute as given; None if absent.

    Raises:
        CannotConvert: It is a parameter of the function around the node.
    """
    given = node.attributes.get(name)
    if given is not None:
        if given.is_ref():
            raise CannotConvert(
                f"its attribute {name} is a parameter of the function around it",
                "run inline-functions first",
            )
        return given
    return None


def integer(node: ir.Node, name: str, default: int = 0) -> int:
    """Return an integer attribute.

    Args:
        node: The node.
        name: The attribute.
        default: What an absent one means.
    """
    found = attribute(node, name)
    return default if found is None else found.as_int()


def real(node: ir.Node, name: str, default: float = 0.0) -> float:
    """Return a float attribute.

    Args:
        node: The node.
        name: The attribute.
        default: What an absent one means.
    """
    found = attribute(node, name)
    return default if found is None else found.as_float()


def text(node: ir.Node, name: str, default: str = "") -> str:
    """Return a string attribute.

    Args:
        node: The node.
        name: The attribute.
        default: What an absent one means.
    """
    found = attribute(node, name)
    return default if found is None else found.as_string()


def integers(node: ir.Node, name: str) -> tuple[int, ...] | None:
    """Return an attribute of integers; None if absent."""
    found = attribute(node, name)
    return None if found is None else tuple(found.as_ints())


def optional_input(node: ir.Node, index: int) -> ir.Value | None:
    """Return an input; None if it is absent or left out."""
    return node.inputs[index] if index < len(node.inputs) else None


def operand(node: ir.Node, index: int) -> ir.Value:
    """Return an input that cannot be absent.

    Raises:
        CannotConvert: It is, in a node that is none of its operator.
    """
    value = optional_input(node, index)
    if value is None:
        raise CannotConvert(f"its input {index} is missing")
    return value


def operands(node: ir.Node, count: int) -> list[ir.Value]:
    """Return the first inputs, none of which can be absent."""
    return [operand(node, index) for index in range(count)]


def used(node: ir.Node, index: int) -> bool:
    """Say whether an output exists and anything reads it, or what it stands for."""
    if index >= len(node.outputs):
        return False
    value = node.outputs[index]
    return bool(value.uses()) or value.is_graph_output() or WANTED in value.meta


WANTED = "vlmpass.wanted"
"""Marks an output of a node that is in no graph yet and stands for one that is read."""


def bind_types(node: ir.Node, found: Schema) -> None:
    """Give untyped outputs the type of the input that shares their type parameter."""
    for index, output in enumerate(node.outputs):
        if output.type is not None or not found.outputs or not found.output(index).homogeneous:
            continue
        formal = found.output(index)
        for position, value in enumerate(node.inputs):
            source = found.input(position)
            shared = source.homogeneous and source.parameter == formal.parameter
            if shared and value is not None and value.type is not None:
                output.type = value.type
                break


def _bind(value: ir.Value) -> None:
    """Give an untyped value a type through the type parameters of what computes it."""
    producer = value.producer()
    if value.type is not None or producer is None or producer.domain != "":
        return
    if producer.op_type == "Cast":
        to = producer.attributes.get("to")
        named = None if to is None else named_type(to)
        value.type = None if named is None else ir.TensorType(named)
        return
    versions = history(producer.op_type)
    if versions:
        for source in producer.inputs:
            if source is not None:
                _bind(source)
        bind_types(producer, schema(producer.op_type, versions[-1]))


def dtype(value: ir.Value) -> ir.DataType:
    """Return a value's element type.

    Raises:
        CannotConvert: It is unknown, or the value is no tensor.
    """
    _bind(value)
    if value.type is None:
        raise CannotConvert(f"the element type of {value.name} is unknown", INFER_FIRST)
    if not isinstance(value.type, (ir.TensorType, ir.SparseTensorType)):
        raise CannotConvert(f"its operand {value.name} is not a tensor")
    return value.type.dtype


def dims(value: ir.Value) -> list[int | None] | None:
    """Return a value's dimensions, None for each that is not static; None if its rank is."""
    if value.shape is None:
        return None
    return [dim if isinstance(dim, int) else None for dim in value.shape]


def rank(value: ir.Value) -> int:
    """Return a value's rank.

    Raises:
        CannotConvert: It is unknown.
    """
    if value.shape is None:
        raise CannotConvert(f"the rank of {value.name} is unknown", INFER_FIRST)
    return len(value.shape)


def static(value: ir.Value) -> list[int]:
    """Return a value's dimensions, all static.

    Raises:
        CannotConvert: One of them is not, or none is known.
    """
    found = dims(value)
    if found is None:
        raise CannotConvert(f"the shape of {value.name} is unknown", INFER_FIRST)
    sizes = [dim for dim in found if dim is not None]
    if len(sizes) < len(found):
        raise CannotConvert(f"the shape of {value.name} is dynamic", "fix the input shapes")
    return sizes


def constant(value: ir.Value | None) -> ir.TensorProtocol | None:
    """Return the tensor that a value always is, of any size and unread; None if it varies."""
    return None if value is None else constant_of(source_of(value))


def known_or_none(value: ir.Value | None) -> np.ndarray | None:
    """Return a small constant's elements; None if absent, not constant, or a large weight."""
    tensor = constant(value)
    if tensor is None or tensor.nbytes > _LARGEST_CONSTANT:
        return None
    return tensor.numpy()


def known(value: ir.Value, what: str) -> np.ndarray:
    """Return a small constant's elements.

    Args:
        value: The value that has to be constant.
        what: What it is to the node, such as ``axes``; the refusal says so.

    Raises:
        CannotConvert: It varies, or is too large to be read.
    """
    found = known_or_none(value)
    if found is None:
        raise CannotConvert(
            f"its input {what} is not a constant, and at the lower opset it is an attribute",
            f"fold constants first, or {HIGHER}",
        )
    return found


def listed(values: np.ndarray) -> list[int]:
    """Return the integers that a small constant holds."""
    return [int(each) for each in values.reshape(-1)]


def again(
    op: Tape,
    node: ir.Node,
    inputs: Sequence[ir.Value | None] | None = None,
    *,
    drop: Sequence[str] = (),
    op_type: str | None = None,
    outputs: int | None = None,
    **attributes: object,
) -> Sequence[ir.Value]:
    """Record a node like another one and return its outputs.

    Args:
        op: The tape.
        node: The node to follow.
        inputs: Its inputs, if they differ.
        drop: Attributes that it does not have.
        op_type: Its operator, if it differs.
        outputs: How many outputs it has, if that differs.
        attributes: Attributes that differ or are added; None removes one.
    """
    kept: dict[str, object] = {
        name: value for name, value in node.attributes.items() if name not in drop
    }
    kept.update(attributes)
    count = len(node.outputs) if outputs is None else outputs
    return op.node(
        op_type or node.op_type, node.inputs if inputs is None else inputs, kept, outputs=count
    )
