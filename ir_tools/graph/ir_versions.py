"""What the versions of the file format brought: types, functions, configurations of devices."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from vlmpass.ir_tools.graph.walk import all_nodes, all_values, tensor_slots

__all__ = ["DEVICES_SINCE", "features"]

DEVICES_SINCE = 11
"""The ir_version that introduced configurations of devices."""

_TYPES_SINCE = {
    4: ("BFLOAT16",),
    9: ("FLOAT8E4M3FN", "FLOAT8E4M3FNUZ", "FLOAT8E5M2", "FLOAT8E5M2FNUZ"),
    10: ("INT4", "UINT4"),
    11: ("FLOAT4E2M1",),
    12: ("FLOAT8E8M0",),
    13: ("INT2", "UINT2"),
    14: ("FLOAT6E2M3", "FLOAT6E3M2"),
}
"""From the version notes in onnx.proto; the types not named have always been there."""
_SINCE = {name: version for version, names in _TYPES_SINCE.items() for name in names}


def features(model: ir.Model) -> Iterator[tuple[int, str]]:
    """Yield every feature of a model that came with an ir_version: the version, and its name."""
    yield 3, "opset imports"
    if model.functions:
        yield 8, "functions"
    if any(overload for _, _, overload in model.functions):
        yield 10, "overloaded functions"
    if model.device_configurations or any(each.device_configurations for each in all_nodes(model)):
        yield DEVICES_SINCE, "configuration of devices"
    used = {value.dtype for value in all_values(model)}
    used |= {slot.tensor.dtype for slot in tensor_slots(model)}
    for dtype in used - {None}:
        assert dtype is not None
        yield _SINCE.get(dtype.name, 1), f"type {dtype.name.lower()}"
