"""Small constructions that many adapters share: constants, axes, sizes and scalars of a shape."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from vlmpass.ir_tools.graph.tape import Tape
from vlmpass.ir_tools.operators.schema import schema, since
from vlmpass.ir_tools.operators.type_texts import spell
from vlmpass.rewriter_rules.opset.queries import again, integer, integers, rank, real
from vlmpass.rewriter_rules.opset.table import UNCHANGED, CannotConvert, Outputs

__all__ = [
    "along",
    "arange",
    "at_opset",
    "axis_of",
    "blank",
    "cast",
    "exchanged",
    "flat",
    "given_integers",
    "given_scalar",
    "index_along",
    "normalized",
    "part",
    "scalar",
    "scalar_at",
    "size_at",
    "sizes_of",
    "spell_constants",
    "vector",
    "without",
]

_EXACT = 2**53
"""Doubles hold all integers up to here."""


def at_opset(op: Tape, opset: int) -> None:
    """Build at another opset than the adapter's own; the engine leads the nodes on from there."""
    assert not op.nodes
    op.opsets = {**op.opsets, "": opset}


def vector(op: Tape, values: Sequence[int], name: str = "const") -> ir.Value:
    """Record an int64 vector; it may be empty.

    Args:
        op: The tape.
        values: Its elements.
        name: What it is called after.
    """
    return op.const(np.array(values, np.int64), name=name)


def scalar(op: Tape, value: float, dtype: ir.DataType, name: str = "const") -> ir.Value:
    """Record a scalar of an element type.

    Args:
        op: The tape.
        value: A number; it is rounded to the type.
        dtype: The element type.
        name: What it is called after.
    """
    return op.const(np.array(value, np.float64).astype(dtype.numpy()), dtype, name)


def spell_constants(
    op: Tape, outputs: Sequence[ir.Value | None], opset: int
) -> list[ir.Value | None]:
    """Make the constants of a tape such as a function, which has no initializers, can hold.

    Args:
        op: The tape of a node in a function.
        outputs: What stands for the node's outputs.
        opset: The opset of the tape's nodes.

    Returns:
        What stands for the outputs then.

    Raises:
        CannotConvert: The opset has no Constant of the type, nor of one that holds it.
    """
    admitted = schema("Constant", since("Constant", opset) or 1).outputs[0].types
    found, before = list(outputs), len(op.nodes)
    for constant in list(op.constants):
        name = spell(constant.type)
        used = constant.uses() or any(each is constant for each in found)
        if not used or name in admitted:
            continue
        value = _from_double(op, constant)
        if value is None:
            why = f"a Constant of type {name} does not exist at opset {opset}"
            raise CannotConvert(why, "run inline-functions first")
        constant.replace_all_uses_with(value)
        found = [value if each is constant else each for each in found]
    op.nodes[:] = [*op.nodes[before:], *op.nodes[:before]]
    return found


def _from_double(op: Tape, constant: ir.Value) -> ir.Value | None:
    """Record a constant as the Cast of one of type double; None if that is not exact."""
    tensor = constant.const_value
    if tensor is None or not (tensor.dtype.is_integer() or tensor.dtype == ir.DataType.BOOL):
        return None
    array = tensor.numpy()
    if array.size and max(abs(int(array.min())), abs(int(array.max()))) > _EXACT:
        return None
    return op.Cast(op.const(array.astype(np.float64)), to=tensor.dtype)


def given_scalar(
    op: Tape, node: ir.Node, name: str, default: float, dtype: ir.DataType
) -> ir.Value:
    """Record an attribute's number as a scalar of an element type.

    A parameter of the function around the node becomes a Constant of that parameter.

    Args:
        op: The tape.
        node: The node that has the attribute.
        name: A float attribute.
        default: What an absent one means.
        dtype: The element type.
    """
    found = node.attributes.get(name)
    if found is None or found.ref_attr_name is None:
        return scalar(op, real(node, name, default), dtype, name)
    reference = ir.RefAttr("value_float", found.ref_attr_name, ir.AttributeType.FLOAT)
    number = op.node("Constant", [], {"value_float": reference})[0]
    number.type, number.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape([])
    return number if dtype == ir.DataType.FLOAT else op.Cast(number, to=dtype)


def given_integers(op: Tape, node: ir.Node, name: str) -> ir.Value | None:
    """Record an attribute's integers as a vector; None if it is absent.

    A parameter of the function around the node becomes a Constant of that parameter.

    Args:
        op: The tape.
        node: The node that has the attribute.
        name: An attribute of integers.
    """
    found = node.attributes.get(name)
    if found is None:
        return None
    if found.is_ref():
        assert found.ref_attr_name is not None
        reference = ir.RefAttr("value_ints", found.ref_attr_name, ir.AttributeType.INTS)
        return op.node("Constant", [], {"value_ints": reference})[0]
    return vector(op, integers(node, name) or (), name)


def normalized(axis: int, count: int) -> int:
    """Return an axis counted from the front.

    Args:
        axis: May count from the back.
        count: The rank.

    Raises:
        CannotConvert: The rank has no such axis.
    """
    if not -count <= axis < count:
        raise CannotConvert(f"axis {axis} is out of range for rank {count}", "correct the model")
    return axis + count if axis < 0 else axis


def axis_of(node: ir.Node, default: int, name: str = "axis") -> int:
    """Return an axis attribute of the first input, counted from the front.

    The rank is asked for only if the axis counts from the back.

    Args:
        node: A node with a first input.
        default: What an absent attribute means.
        name: The attribute.
    """
    axis = integer(node, name, default)
    if axis >= 0:
        return axis
    value = node.inputs[0]
    assert value is not None
    return normalized(axis, rank(value))


def size_at(op: Tape, value: ir.Value, axis: int) -> ir.Value:
    """Record the size of one axis as an int64 vector of one element.

    Args:
        op: The tape.
        value: Any tensor.
        axis: Counted from the front.
    """
    return op.Gather(op.Shape(value), vector(op, [axis]), axis=0)


def scalar_at(op: Tape, vector: ir.Value, index: int) -> ir.Value:
    """Record one element of a vector as a scalar.

    Args:
        op: The tape.
        vector: A tensor of one axis.
        index: Which element, counted from the front.
    """
    return op.Gather(vector, op.const(index), axis=0)


def part(op: Tape, value: ir.Value, start: int, stop: int) -> ir.Value:
    """Record the elements of a vector, or the rows of a tensor, from one to before another.

    Args:
        op: The tape.
        value: A tensor of one axis or more.
        start: The first; may count from the back.
        stop: The one after the last; may count from the back, or lie beyond the end.
    """
    return op.Slice(value, vector(op, [start]), vector(op, [stop]), vector(op, [0]))


def sizes_of(op: Tape, value: ir.Value, start: int, stop: int) -> ir.Value:
    """Record the sizes of some neighbouring axes as an int64 vector.

    Args:
        op: The tape.
        value: Any tensor.
        start: The first axis; may count from the back.
        stop: The axis after the last; may count from the back, or lie beyond the end.
    """
    return part(op, op.Shape(value), start, stop)


def flat(op: Tape, value: ir.Value) -> ir.Value:
    """Record a value's elements as a vector."""
    return op.Reshape(value, vector(op, [-1]))


def cast(op: Tape, value: ir.Value, to: ir.DataType) -> ir.Value:
    """Record a value in an element type; the value itself where it has that.

    Args:
        op: The tape.
        value: A tensor.
        to: The element type.
    """
    return value if value.dtype == to else op.Cast(value, to=to)


def blank(op: Tape, kind: ir.DataType) -> ir.Value:
    """Record the zero of an element type as a scalar."""
    return op.const(np.zeros([], kind.numpy()), kind)


def arange(op: Tape, count: ir.Value) -> ir.Value:
    """Record 0, 1, 2 and so on as an int64 vector; opset 11.

    Args:
        op: The tape.
        count: How many, an int64 scalar.
    """
    return op.Range(op.const(0), count, op.const(1))


def along(op: Tape, line: ir.Value, axis: int, count: int) -> ir.Value:
    """Record a vector as the values along one axis, of size 1 in the others.

    Args:
        op: The tape.
        line: A vector.
        axis: Counted from the front.
        count: How many axes there are.
    """
    return op.Reshape(line, vector(op, [-1 if each == axis else 1 for each in range(count)]))


def index_along(op: Tape, sizes: ir.Value, axis: int, count: int) -> ir.Value:
    """Record the index along one axis, of size 1 in the others; opset 11.

    Args:
        op: The tape.
        sizes: The size of every axis.
        axis: Counted from the front.
        count: How many axes the index is to have.
    """
    return along(op, arange(op, scalar_at(op, sizes, axis)), axis, count)


def exchanged(count: int, one: int, other: int) -> list[int]:
    """Return the permutation of some axes that exchanges two of them.

    Args:
        count: How many axes there are.
        one: An axis.
        other: Another one.
    """
    order = [*range(count)]
    order[one], order[other] = order[other], order[one]
    return order


def without(op: Tape, node: ir.Node, *names: str) -> Outputs:
    """Record a node without some attributes; it stands as it is where it has none of them.

    Args:
        op: The tape.
        node: The node.
        names: The attributes.
    """
    return again(op, node, drop=names) if set(names) & set(node.attributes) else UNCHANGED
