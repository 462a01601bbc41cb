"""Models with one node each, to ask a runtime what it takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import onnx_ir as ir

from vlmpass.ir_tools.operators.formal import Formal, Schema
from vlmpass.ir_tools.operators.schema import ir_version_of
from vlmpass.ir_tools.operators.type_texts import dtype_of, parse

__all__ = ["needs_graphs", "one_node_models"]

_RANKS = (None, 4, 3, 2, 1)
_GRAPHS = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
_CHOOSERS = ("to", "dtype", "output_dtype", "output_datatype")
"""Attributes that say of which type an output is."""

_VALUES: Mapping[ir.AttributeType, object] = {
    ir.AttributeType.INT: 1,
    ir.AttributeType.INTS: [1],
    ir.AttributeType.FLOAT: 1.0,
    ir.AttributeType.FLOATS: [1.0],
    ir.AttributeType.STRING: "",
    ir.AttributeType.STRINGS: [""],
}


def needs_graphs(schema: Schema) -> bool:
    """Whether an operator has attributes with graphs, which nothing here makes."""
    return any(schema.attributes[name] in _GRAPHS for name in schema.required)


def one_node_models(
    domain: str, schema: Schema, opset: int, types: Mapping[str, str]
) -> Iterator[ir.Model]:
    """Yield models with one node of an operator, of which one is valid, if there is luck.

    Args:
        domain: Of the operator.
        schema: The operator.
        opset: Of the default domain.
        types: The type of each type parameter, as the schema spells it.
    """
    for rank in _RANKS:
        for with_optional in (False, True):
            yield _model(domain, schema, opset, types, rank, with_optional)


def _model(
    domain: str,
    schema: Schema,
    opset: int,
    types: Mapping[str, str],
    rank: int | None,
    with_optional: bool,
) -> ir.Model:
    taken = [each for each in schema.inputs if with_optional or not each.optional]
    given = [each for each in schema.outputs if with_optional or not each.optional]
    inputs = [_value(each, "i", types, rank) for each in taken]
    outputs = [_value(each, "o", types, None) for each in given or schema.outputs[:1]]
    required = [name for name in sorted(schema.required) if schema.attributes[name] in _VALUES]
    required += [name for name in _CHOOSERS if name not in required and _chooses(name, schema)]
    attributes = [_attribute(name, schema, types) for name in required]
    if not schema.inputs and schema.attributes.get("value") is ir.AttributeType.TENSOR:
        dtype = dtype_of(types.get(schema.outputs[0].parameter, "")) or ir.DataType.FLOAT
        attributes = [ir.AttrTensor("value", _zero(dtype))]
    node = ir.Node(domain, schema.name, inputs, attributes, outputs=outputs)
    imports = {"": opset, **({domain: 1} if domain else {})}
    graph = ir.Graph(inputs, outputs, nodes=[node], opset_imports=imports, name="one")
    return ir.Model(graph, ir_version=ir_version_of(opset))


def _chooses(name: str, schema: Schema) -> bool:
    """Whether an attribute says of which type the output is, as no input does."""
    taken = {each.parameter for each in schema.inputs}
    return name in schema.attributes and schema.outputs[0].parameter not in taken


def _zero(dtype: ir.DataType) -> ir.TensorProtocol:
    if dtype is ir.DataType.STRING:
        return ir.StringTensor([b""], shape=ir.Shape([1]))
    return ir.Tensor(np.zeros(1, dtype.numpy()), dtype=dtype)


def _value(formal: Formal, prefix: str, types: Mapping[str, str], rank: int | None) -> ir.Value:
    alone = next(iter(formal.types)) if len(formal.types) == 1 else formal.parameter
    kind = parse(types.get(formal.parameter, alone))
    shape = None if rank is None or not isinstance(kind, ir.TensorType) else ir.Shape([2] * rank)
    return ir.Value(name=f"{prefix}_{formal.name}", type=kind, shape=shape)


def _attribute(name: str, schema: Schema, types: Mapping[str, str]) -> ir.Attr:
    kind = schema.attributes[name]
    if name in _CHOOSERS:
        dtype = dtype_of(types.get(schema.outputs[0].parameter, ""))
        return ir.Attr(name, kind, 1 if dtype is None else dtype.value)
    return ir.Attr(name, kind, _VALUES[kind])
