"""The versions a converted model carries: opset imports, and the ir_version that goes with them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import onnx_ir as ir

from vlmpass.ir_tools.opsets import default_opset, ir_version_of
from vlmpass.ir_tools.walk import scopes

__all__ = ["needed_ir_version", "stamp"]

_D = ir.DataType
_DTYPE_VERSIONS = {
    **dict.fromkeys((_D.FLOAT8E4M3FN, _D.FLOAT8E4M3FNUZ, _D.FLOAT8E5M2, _D.FLOAT8E5M2FNUZ), 9),
    **dict.fromkeys((_D.INT4, _D.UINT4), 10),
    _D.FLOAT4E2M1: 11,
    _D.FLOAT8E8M0: 12,
    **dict.fromkeys((_D.INT2, _D.UINT2), 13),
    **dict.fromkeys((_D.FLOAT6E2M3, _D.FLOAT6E3M2), 14),
}
"""The ir_version that introduced each element type; those not named have always been there."""


def needed_ir_version(model: ir.Model) -> int:
    """Return the lowest ir_version that has every feature and element type of a model."""
    needed = 8 if model.functions else 4
    if any(function.overload for function in model.functions.values()):
        needed = 10
    dtypes: set[ir.DataType | None] = set()
    for scope in scopes(model):
        dtypes.update(value.dtype for value in scope.graph.inputs)
        held = [*scope.initializers.values()]
        dtypes.update(value.dtype for value in held)
        dtypes.update(each.const_value.dtype for each in held if each.const_value is not None)
        for node in scope.graph:
            if node.device_configurations:
                needed = max(needed, 11)
            for value in node.outputs:
                dtypes.add(value.dtype)
            if node.attributes.data:
                dtypes.update(_dtypes_of(node.attributes))
        if isinstance(scope.graph, ir.Function):
            dtypes.update(_dtypes_of(scope.graph.attributes))
    return max([needed, *(_DTYPE_VERSIONS.get(dtype, 0) for dtype in dtypes if dtype)])


def _dtypes_of(attributes: Mapping[str, ir.Attr]) -> Iterator[ir.DataType]:
    """Yield the element types of the tensors in attributes."""
    for attribute in attributes.values():
        if attribute.is_ref() or attribute.value is None:
            continue
        if attribute.type == ir.AttributeType.TENSOR:
            yield attribute.as_tensor().dtype
        elif attribute.type == ir.AttributeType.TENSORS:
            yield from (tensor.dtype for tensor in attribute.as_tensors())


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
