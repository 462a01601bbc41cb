"""Casts, constants and what else names an element type."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from vlmpass.ir_tools.graph.tape import Tape
from vlmpass.ir_tools.operators.schema import schema
from vlmpass.ir_tools.operators.type_texts import spell
from vlmpass.rewriter_rules.opset.build import scalar, without
from vlmpass.rewriter_rules.opset.queries import (
    again,
    attribute,
    dtype,
    operand,
    optional_input,
)
from vlmpass.rewriter_rules.opset.table import (
    HIGHER,
    UNCHANGED,
    CannotConvert,
    Outputs,
    adapter,
    expansion,
)
from vlmpass.rewriter_rules.opset.view import shape_within

__all__: list[str] = []

_D = ir.DataType


@adapter("Cast", 19, 13)
@adapter("CastLike", 19, 15)
def saturating(op: Tape, node: ir.Node) -> Outputs:
    """Op(x, saturate=s) -> Op(x), when it is no cast to a float8 type."""
    return without(op, node, "saturate")


@adapter("Cast CastLike", 24, 23)
def rounding(op: Tape, node: ir.Node) -> Outputs:
    """Op(x, round_mode=m) -> Op(x), when it is no cast to float8e8m0."""
    return without(op, node, "round_mode")


@expansion("CastLike", 15)
def cast(op: Tape, node: ir.Node) -> Outputs:
    """CastLike(x, y) -> Cast(x, to=type of y)."""
    return op.Cast(operand(node, 0), to=dtype(operand(node, 1)))


@adapter("Constant", 12, 11)
def value_as_tensor(op: Tape, node: ir.Node) -> Outputs:
    """Constant(value_ints=v) -> Constant(value=v)."""
    if len(node.attributes) != 1:
        raise CannotConvert("it has not one value", "correct the model")
    (given,) = node.attributes.values()
    if given.name in ("value", "sparse_value"):
        return UNCHANGED
    if given.is_ref():
        return _of_parameter(op, given)
    return again(op, node, drop=(given.name,), value=_as_tensor(given))


def _of_parameter(op: Tape, given: ir.Attr) -> ir.Value:
    """Record the number that is a parameter of the function around the node.

    No older operator makes a tensor of an attribute as directly: LeakyRelu(-1) is -alpha.
    """
    if given.name != "value_float":
        raise CannotConvert(
            "its value is a parameter of the function around it", "run inline-functions first"
        )
    alpha = ir.RefAttr("alpha", given.ref_attr_name or "", ir.AttributeType.FLOAT)
    return op.Neg(op.LeakyRelu(op.const(np.float32(-1)), alpha=alpha))


def _as_tensor(given: ir.Attr) -> ir.TensorProtocol:
    """Return the numbers or texts of an attribute of Constant as a tensor."""
    if given.name in ("value_string", "value_strings"):
        texts = [given.value] if given.name == "value_string" else given.value
        shape = [] if given.name == "value_string" else [len(texts)]
        return ir.StringTensor([text.encode() for text in texts], shape=ir.Shape(shape))
    return ir.tensor(np.array(given.value, np.float32 if "float" in given.name else np.int64))


@adapter("Constant", 11, 9)
def dense_value(op: Tape, node: ir.Node) -> Outputs:
    """Constant(value=v) stays."""
    if "sparse_value" in node.attributes:
        raise CannotConvert(
            "sparse constants do not exist before opset 11", "make the constant dense"
        )
    return UNCHANGED


@adapter("Constant", 9, 1)
def as_initializer(op: Tape, node: ir.Node) -> Outputs:
    """Constant(value=v) -> an initializer, when v is not of a floating type."""
    given = attribute(node, "value")
    if given is None:
        raise CannotConvert("it has no value", "correct the model")
    tensor = given.as_tensor()
    admitted = spell(ir.TensorType(tensor.dtype)) in schema("Constant", 1).outputs[0].types
    return UNCHANGED if admitted else op.const(tensor)


@adapter("ConstantOfShape", 20, 9)
@adapter("ConstantOfShape", 21, 20)
@adapter("ConstantOfShape", 23, 21)
@adapter("ConstantOfShape", 24, 23)
@adapter("ConstantOfShape", 25, 24)
def fill_in_admitted_type(op: Tape, node: ir.Node) -> Outputs:
    """ConstantOfShape(s, value=v) -> Cast(ConstantOfShape(s, value=float(v))), of bf16."""
    given = attribute(node, "value")
    if given is None:
        return UNCHANGED
    fill = given.as_tensor()
    if spell(ir.TensorType(fill.dtype)) in schema("ConstantOfShape", 9).outputs[0].types:
        return UNCHANGED
    wide = ir.tensor(fill.numpy().astype(np.float32), dtype=_D.FLOAT)
    return op.Cast(again(op, node, value=wide)[0], to=fill.dtype)


@adapter("EyeLike", 22, 9)
def eye_in_admitted_type(op: Tape, node: ir.Node) -> Outputs:
    """EyeLike(x, dtype=bf16) -> Cast(EyeLike(x, dtype=float), to=bf16)."""
    x, kind = operand(node, 0), dtype(node.outputs[0])
    like = op.Cast(x, to=_D.FLOAT) if dtype(x) == _D.BFLOAT16 else x
    if kind != _D.BFLOAT16 and like is x:
        return UNCHANGED
    (eye,) = again(op, node, [like], dtype=_D.FLOAT if kind == _D.BFLOAT16 else kind)
    return op.Cast(eye, to=kind) if kind == _D.BFLOAT16 else eye


@adapter("OptionalHasElement", 18, 15)
def has_element(op: Tape, node: ir.Node) -> Outputs:
    """OptionalHasElement(x) -> true for a tensor or sequence, false for nothing."""
    x = optional_input(node, 0)
    if x is not None and (x.type is None or isinstance(x.type, ir.OptionalType)):
        return UNCHANGED
    return op.Identity(op.const(np.array(x is not None)))


@adapter("OptionalGetElement", 18, 15)
def element(op: Tape, node: ir.Node) -> Outputs:
    """OptionalGetElement(x) -> x, when x is a tensor or sequence."""
    x = operand(node, 0)
    if x.type is None or isinstance(x.type, ir.OptionalType):
        return UNCHANGED
    return op.Identity(x) if isinstance(x.type, ir.SequenceType) else x


@adapter("Identity", 14, 13)
def same_sequence(op: Tape, node: ir.Node) -> Outputs:
    """Identity(s) of a sequence -> SequenceErase(SequenceInsert(s, 0)); opset 11."""
    x = operand(node, 0)
    if not isinstance(x.type, ir.SequenceType) or not isinstance(x.type.elem_type, ir.TensorType):
        return UNCHANGED
    kind, text = x.type.elem_type.dtype, ir.StringTensor([b""], shape=ir.Shape([1]))
    filler = op.const(text) if kind == _D.STRING else scalar(op, 0, kind)
    return op.SequenceErase(op.SequenceInsert(x, filler))


def _differ(one: ir.Shape | None, other: ir.Shape | None) -> bool:
    """Whether two shapes are known, and not the same."""
    if one is None or other is None:
        return False
    return [_size(dim) for dim in one] != [_size(dim) for dim in other]


def _size(dim: int | ir.SymbolicDim) -> int | str | None:
    return dim if isinstance(dim, int) else dim.value


@adapter("If", 11, 1)
def branches_alike(op: Tape, node: ir.Node) -> Outputs:
    """If(c) stays, when no output has different shapes in the two branches."""
    branches = [node.attributes[name].as_graph() for name in ("then_branch", "else_branch")]
    for pair in zip(*(branch.outputs for branch in branches), strict=True):
        if _differ(*(shape_within(node, value) for value in pair)):
            raise CannotConvert(
                "its branches give different shapes, which opset 11 brought", HIGHER
            )
    return UNCHANGED
