"""The versions a converted model carries: opset imports, and the ir_version that goes with them."""

from __future__ import annotations

import onnx_ir as ir

from vlmpass.ir_tools.ir_versions import features
from vlmpass.ir_tools.opsets import default_opset, ir_version_of

__all__ = ["needed_ir_version", "stamp"]


def needed_ir_version(model: ir.Model) -> int:
    """Return the lowest ir_version, from 4 on, that has every feature and type of a model."""
    return max(4, *(version for version, _ in features(model)))


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
