"""Types and shapes of the outputs of one node, as soon as it exists."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache

import onnx_ir as ir
import onnx_shape_inference as symbolic  # type: ignore[import-untyped]

from vlmpass.ir_tools.graph.constants import constant_of
from vlmpass.ir_tools.graph.symbols import without_symbols
from vlmpass.ir_tools.operators.schema import in_force, is_legacy
from vlmpass.ir_tools.operators.type_texts import parse

__all__ = ["infer_node"]


@cache
def _registry() -> symbolic.OpShapeInferenceRegistry:
    symbolic.registry.collect()
    return symbolic.registry


_REJECTIONS = (
    symbolic.OpUsageError,
    symbolic.ShapeInferenceError,
    ValueError,
    OverflowError,
    TypeError,  # an attribute of another type than the operator has
    IndexError,  # an operand of fewer axes than the operator takes
)

_TAKEN_AS_ELEMENTWISE = ("Pool", "ReduceMean")
"""Ends of names of ONNX Runtime's operators whose shape functions give the input's shape."""

_WRONG = frozenset({"MelWeightMatrix"})
"""Operators whose shape function gives another shape than the operator has."""

_DECIDING = {"Slice": (1, 2, 3, 4), "Split": (1,), "Squeeze": (1,)}
"""Operands of operators without whose numbers the shape functions guess."""

_TYPED_BY = {"QGemm": 8}
"""Operands of ONNX Runtime's operators that type the result, where shape functions take others."""


def infer_node(node: ir.Node, opsets: Mapping[str, int]) -> None:
    """Fill in the types and shapes of a node's outputs as far as its inputs allow.

    Args:
        node: A node whose inputs carry types; what its outputs already carry is refined, not lost.
        opsets: Imported opset version by domain.

    A node of an unknown operator, or one the shape functions reject, is left as it is: whether the
    graph is well typed is the checker's business, with the whole graph before it.
    """
    if not node.domain and is_legacy(node.op_type, opsets.get("", 1)):
        return  # the shape functions are written for later versions
    if not node.domain and node.op_type in _WRONG:
        return
    infer = _registry().get(node.domain, node.op_type, version=opsets.get(node.domain, 1))
    if infer is None or (node.domain and node.op_type.endswith(_TAKEN_AS_ELEMENTWISE)):
        _type_by_schema(node, opsets)
        return
    context = symbolic.ShapeInferenceContext(opsets)
    declared = [output.shape for output in node.outputs]
    # Elements of shape tensors are followed as Python integers, which may outgrow their type.
    with (
        _named(node, context),
        suppress(*_REJECTIONS),
    ):
        infer(context, node)
    _bind_types(node, opsets)
    if node.domain:
        _type_by_schema(node, opsets)
        _forget_guesses(node, declared)
        _type_by_operand(node)
    elif _is_guessed(node):
        for output, shape in zip(node.outputs, declared, strict=True):
            output.shape = shape
    elif node.op_type == "Slice":
        _forget_lengths(node)
    for output in node.outputs:
        if output.shape is not None:
            output.shape = ir.Shape(without_symbols(output.shape))  # it guesses where unsure
        # Its notes on the elements of shape tensors would be written into the file.
        output.metadata_props.pop(symbolic.SYM_DATA_KEY, None)
        if output.shape is not None:
            output.shape = ir.Shape(
                [dim if _may_be_said(context, dim) else None for dim in output.shape]
            )


def _is_guessed(node: ir.Node) -> bool:
    """Whether the shape functions say what only numbers that are computed decide, or forget axes.

    Sizes to split into are taken as equal, steps and axes as absent, and all axes of an open size
    as kept where those of size 1 go.
    """
    places = _DECIDING.get(node.op_type, ())
    given = [node.inputs[at] for at in places if at < len(node.inputs)]
    if any(value is not None and constant_of(value) is None for value in given):
        return True
    if node.op_type == "Unique":
        return "axis" in node.attributes
    x = node.inputs[0] if node.inputs else None
    if x is None or x.shape is None:
        return False
    if node.op_type == "NonZero":
        return len(x.shape) == 0
    named = any(given) or "axes" in node.attributes
    return node.op_type == "Squeeze" and not named and not x.shape.is_static()


def _forget_lengths(node: ir.Node) -> None:
    """Take back the lengths of slices along axes whose own size is not known, and may be less."""
    x, output = node.inputs[0] if node.inputs else None, node.outputs[0]
    if x is None or x.shape is None or output.shape is None or len(x.shape) != len(output.shape):
        return
    pairs = zip(x.shape, output.shape, strict=True)
    output.shape = ir.Shape(
        [cut if cut == 0 or isinstance(n, int) else _open(cut) for n, cut in pairs]
    )


def _open(dim: int | ir.SymbolicDim) -> ir.SymbolicDim | None:
    return None if isinstance(dim, int) else dim


def _forget_guesses(node: ir.Node, declared: list[ir.Shape | None]) -> None:
    """Take back shapes that the shape functions guess.

    Of caches they think neither of buffers that are longer than what is in them nor of values of
    another size than the keys, and of products not of operands whose batch is turned.
    """
    turned = "transBatchA" in node.attributes or "transBatchB" in node.attributes
    if turned or node.op_type.endswith("Attention"):
        pairs = list(zip(node.outputs, declared, strict=True))
        for output, shape in pairs[0 if turned else 1 :]:
            output.shape = shape


def _may_be_said(context: symbolic.ShapeInferenceContext, dim: int | ir.SymbolicDim) -> bool:
    """Whether a size is of the model, and no larger than a file can say."""
    return dim < 2**63 if isinstance(dim, int) else not _minted(context, dim)


def _type_by_schema(node: ir.Node, opsets: Mapping[str, int]) -> None:
    """Give outputs that have no type the one that the schema fixes, or that operands have."""
    found = in_force(node.domain, node.op_type, opsets.get(node.domain, 1))
    if found is None:
        return
    given = ((found.input_at(at), each) for at, each in enumerate(node.inputs) if each is not None)
    bound = {formal.parameter: each.type for formal, each in given if formal and formal.homogeneous}
    for index, output in enumerate(node.outputs):
        formal = found.output_at(index)
        if output.type is None and formal is not None and formal.homogeneous:
            fixed = found.fixed.get(formal.parameter)
            output.type = bound.get(formal.parameter) if fixed is None else parse(fixed)


def _type_by_operand(node: ir.Node) -> None:
    """Give a result that is quantised the type of its zero point, not that of its scale."""
    index = _TYPED_BY.get(node.op_type, len(node.inputs))
    given = node.inputs[index] if index < len(node.inputs) else None
    if given is not None and given.dtype is not None:
        node.outputs[0].type = ir.TensorType(given.dtype)


def _bind_types(node: ir.Node, opsets: Mapping[str, int]) -> None:
    """Give outputs the type of the inputs that they share a type parameter with.

    The shape functions take the first input's for those of BatchNormalization and Attention, and
    that of a table of bytes for QEmbedLayerNormalization.
    """
    found = in_force(node.domain, node.op_type, opsets.get(node.domain, 1))
    if found is None or not node.inputs:
        return
    bound: dict[str, ir.TypeProtocol] = {}
    for index, value in enumerate(node.inputs):
        formal = found.input_at(index)  # a file may give more
        if formal and value is not None and value.type is not None and not formal.variadic:
            bound.setdefault(formal.parameter, value.type)
    for index, output in enumerate(node.outputs):
        formal = found.output_at(index)
        if formal is None:
            continue
        fixed = found.fixed.get(formal.parameter)
        kind = parse(fixed) if fixed else bound.get(formal.parameter)
        if isinstance(kind, ir.TensorType) and isinstance(output.type, ir.TensorType):
            output.type = output.type if output.dtype == kind.dtype else ir.TensorType(kind.dtype)


@contextmanager
def _named(node: ir.Node, context: symbolic.ShapeInferenceContext) -> Iterator[None]:
    """Give every anonymous dimension of the inputs a name, which the shape functions insist on."""
    given: dict[ir.Value, ir.Shape] = {}
    shaped = [value for value in node.inputs if value is not None and value.shape is not None]
    taken = {name for value in shaped for dim in value.shape or () for name in _names(dim)}
    context.reserve_symbol_names(taken)
    for value in shaped:
        if value.shape is None or value in given:
            continue
        if any(isinstance(dim, ir.SymbolicDim) and dim.value is None for dim in value.shape):
            given[value] = value.shape
            value.shape = ir.Shape(
                [
                    context.new_symbolic_dim()
                    if isinstance(dim, ir.SymbolicDim) and dim.value is None
                    else dim
                    for dim in value.shape
                ]
            )
    try:
        yield
    finally:
        for value, shape in given.items():
            value.shape = shape


def _minted(context: symbolic.ShapeInferenceContext, dim: ir.SymbolicDim) -> bool:
    # A symbol invented for this one node would clash with one invented for the next.
    return any(context.is_generated_symbol(name) for name in _names(dim))


def _names(dim: ir.SymbolicDim | int) -> list[str]:
    """Return the symbols of an expression for a size."""
    if not isinstance(dim, ir.SymbolicDim) or dim.value is None:
        return []
    return re.findall(r"[^\W\d]\w*", str(dim.value))
