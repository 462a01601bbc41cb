"""Types and shapes of the outputs of one node, as soon as it exists."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from functools import cache

import onnx_ir as ir
import onnx_shape_inference as symbolic  # type: ignore[import-untyped]

from vlmpass.ir_tools.symbols import without_symbols

__all__ = ["infer_node"]


@cache
def _registry() -> symbolic.OpShapeInferenceRegistry:
    symbolic.registry.collect()
    return symbolic.registry


def infer_node(node: ir.Node, opsets: Mapping[str, int]) -> None:
    """Fill in the types and shapes of a node's outputs as far as its inputs allow.

    Args:
        node: A node whose inputs carry types; what its outputs already carry is refined, not lost.
        opsets: Imported opset version by domain.

    A node of an unknown operator, or one the shape functions reject, is left as it is: whether the
    graph is well typed is the checker's business, with the whole graph before it.
    """
    infer = _registry().get(node.domain, node.op_type, version=opsets.get(node.domain, 1))
    if infer is None:
        return
    context = symbolic.ShapeInferenceContext(opsets)
    # Elements of shape tensors are followed as Python integers, which may outgrow their type.
    with suppress(symbolic.OpUsageError, symbolic.ShapeInferenceError, ValueError, OverflowError):
        infer(context, node)
    for output in node.outputs:
        if output.shape is not None:
            output.shape = ir.Shape(without_symbols(output.shape))  # it guesses where unsure
        # Its notes on the elements of shape tensors would be written into the file.
        output.metadata_props.pop(symbolic.SYM_DATA_KEY, None)
        if output.shape is not None:
            output.shape = ir.Shape(
                [
                    None if isinstance(dim, ir.SymbolicDim) and _minted(context, dim) else dim
                    for dim in output.shape
                ]
            )


def _minted(context: symbolic.ShapeInferenceContext, dim: ir.SymbolicDim) -> bool:
    # A symbol invented for this one node would clash with one invented for the next.
    return dim.value is not None and context.is_generated_symbol(dim.value)
