"""The versions a converted model carries: opset imports, and the ir_version that goes with them."""

from __future__ import annotations

import onnx_ir as ir

from vlmpass.ir_tools.graph.ir_versions import features
from vlmpass.ir_tools.graph.walk import all_nodes
from vlmpass.ir_tools.operators.schema import default_opset, ir_version_of, schema, since

__all__ = ["fit_inputs", "imported_opsets", "needed_ir_version", "raise_ir_version", "stamp"]


def needed_ir_version(model: ir.Model) -> int:
    """Return the lowest ir_version, from 4 on, that has every feature and type of a model."""
    return max((4, *(version for version, _ in features(model))))


def raise_ir_version(model: ir.Model) -> None:
    """Raise the ir_version to one that has every type of a model, for what brings new ones in.

    An opset whose operators take a type came with an ir_version that has it, so that whatever runs
    the one reads the other.
    """
    types = (version for version, what in features(model) if what.startswith("type"))
    model.ir_version = max((model.ir_version, *types))


def imported_opsets(model: ir.Model) -> set[int]:
    """Return the opsets of the default domain that a model and its functions import."""
    each = [model.opset_imports, *(made.opset_imports for made in model.functions.values())]
    return {opset for opset in map(default_opset, each) if opset is not None}


def fit_inputs(model: ir.Model, opset: int) -> bool:
    """Take away inputs left out at the end that an operator does not have at an opset.

    Returns:
        Whether anything changed.
    """
    changed = False
    for node in all_nodes(model):
        if node.domain or not node.inputs or node.inputs[-1] is not None:
            continue
        version = since(node.op_type, opset) if node.op_type else None
        if version is None or node.op_identifier() in model.functions:
            continue
        most = schema(node.op_type, version).max_inputs
        while len(node.inputs) > most and node.inputs[-1] is None:
            node.resize_inputs(len(node.inputs) - 1)
            changed = True
    return changed


def stamp(model: ir.Model, opset: int) -> bool:
    """Write an opset into the model's and every function's imports, and the ir_version it needs.

    Returns:
        Whether anything changed.
    """
    version = max(ir_version_of(opset), needed_ir_version(model))
    changed = version != model.ir_version
    model.ir_version = version
    imported = [model.graph.opset_imports]
    imported += [function.opset_imports for function in model.functions.values()]
    for imports in imported:
        if default_opset(imports) not in (None, opset):
            imports.pop("ai.onnx", None)
            imports[""] = opset
            changed = True
    return changed
