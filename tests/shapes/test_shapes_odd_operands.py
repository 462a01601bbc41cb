"""Inference meets operands of ranks and types that no operator takes: it says nothing, at most."""

from __future__ import annotations

import itertools

import onnx
import onnx.defs
import onnx_ir as ir
import pytest

from vlmpass.ir_tools.graph.infer_node import infer_node

_RANKS = (0, 1, 2, 5)
_TYPES = (ir.DataType.FLOAT, ir.DataType.INT64, ir.DataType.BOOL, ir.DataType.STRING)
_KINDS = onnx.defs.OpSchema.AttrType
_ODD = {
    _KINDS.INT: lambda name: ir.AttrInt64(name, -7),
    _KINDS.INTS: lambda name: ir.AttrInt64s(name, [3, -9]),
    _KINDS.FLOAT: lambda name: ir.AttrFloat32(name, -0.5),
    _KINDS.FLOATS: lambda name: ir.AttrFloat32s(name, [2.0]),
    _KINDS.STRING: lambda name: ir.AttrString(name, "odd"),
    _KINDS.STRINGS: lambda name: ir.AttrStrings(name, ["odd"]),
    _KINDS.TENSOR: lambda name: ir.AttrTensor(name, ir.tensor([[1.0, 2.0]], name=name)),
}
SCHEMAS = {
    schema.name: schema
    for schema in onnx.defs.get_all_schemas()
    if schema.domain == "" and not schema.deprecated
}


@pytest.mark.parametrize("name", sorted(SCHEMAS))
def test_odd_operands_raise_nothing(name: str) -> None:
    schema = SCHEMAS[name]
    fewest, most = schema.min_input, min(schema.max_input, len(schema.inputs) + 2)
    for rank, dtype, odd in itertools.product(_RANKS, _TYPES, (False, True)):
        for count in {0, fewest, most}:
            inputs = [
                ir.Value(name=f"i{at}", type=ir.TensorType(dtype), shape=ir.Shape([2] * rank))
                for at in range(count)
            ]
            given = schema.attributes.values() if odd else ()
            attributes = [_ODD[each.type](each.name) for each in given if each.type in _ODD]
            outputs = min(schema.max_output, len(schema.outputs) + 1)
            node = ir.Node("", name, inputs, attributes, num_outputs=outputs)
            infer_node(node, {"": schema.since_version})
