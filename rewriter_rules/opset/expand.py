"""Operators spelled by the function body that ONNX itself gives, node by node on the tape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from vlmpass.ir_tools.errors import INFER_FIRST
from vlmpass.ir_tools.graph.infer_node import infer_node
from vlmpass.ir_tools.graph.tape import Tape
from vlmpass.ir_tools.operators.schema import function_body, history, schema, since
from vlmpass.rewriter_rules.opset.table import Adapter, CannotConvert, Outputs, expansion, unspelled

__all__ = ["inline"]


def _attributes(
    inner: ir.Node, given: Mapping[str, ir.Attr], defaults: Mapping[str, ir.Attr]
) -> dict[str, object]:
    """Return a body node's attributes with the function's parameters filled in."""
    found: dict[str, object] = {}
    for name, attribute in inner.attributes.items():
        if not attribute.is_ref():
            found[name] = attribute
            continue
        reference = attribute.ref_attr_name or ""
        value = given.get(reference, defaults.get(reference))
        if value is not None:
            found[name] = value
    return found


def inline(op: Tape, body: ir.Function, node: ir.Node) -> list[ir.Value | None]:
    """Record a function's nodes on a tape and return the values of its outputs.

    Args:
        op: The tape.
        body: The function.
        node: The call; its inputs and attributes are the function's.
    """
    version = since(node.op_type, op.opsets[""])
    defaults = {} if version is None else schema(node.op_type, version).defaults
    values: dict[ir.Value, ir.Value | None] = dict.fromkeys(body.inputs)
    values.update(zip(body.inputs, node.inputs, strict=False))
    for inner in body:
        attributes = _attributes(inner, node.attributes, defaults)
        if any(isinstance(each, ir.Attr) and _is_graph(each) for each in attributes.values()):
            _bind_outer(attributes, values)
            _rename_inner(attributes, op)
        inputs = [None if value is None else values[value] for value in inner.inputs]
        for attribute in attributes.values():
            if isinstance(attribute, ir.Attr) and attribute.type == ir.AttributeType.GRAPH:
                _type_body(inner, attribute.as_graph(), inputs, op.opsets)
        outputs = op.node(
            inner.op_type, inputs, attributes, domain=inner.domain, outputs=len(inner.outputs)
        )
        values.update(zip(inner.outputs, outputs, strict=True))
    return [values[output] for output in body.outputs]


def _is_graph(attribute: ir.Attr) -> bool:
    return attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)


def _bind_outer(
    attributes: Mapping[str, object], values: Mapping[ir.Value, ir.Value | None]
) -> None:
    """Let the subgraphs of a body read the tape's values in place of the body's."""
    for attribute in attributes.values():
        if not isinstance(attribute, ir.Attr) or attribute.type != ir.AttributeType.GRAPH:
            continue
        for inner in attribute.as_graph():
            for index, value in enumerate(inner.inputs):
                if value is not None and value in values:
                    inner.replace_input_with(index, values[value])
            _bind_outer(inner.attributes, values)


def _rename_inner(attributes: Mapping[str, object], op: Tape) -> None:
    """Give the values in subgraphs of a body names that nothing else in the model has."""
    for attribute in attributes.values():
        if not isinstance(attribute, ir.Attr) or attribute.type != ir.AttributeType.GRAPH:
            continue
        graph = attribute.as_graph()
        for values in (graph.inputs, *(node.outputs for node in graph)):
            for value in values:
                value.name = value.name and op.names.value(f"{op.hint}/{value.name}")
        for inner in graph:
            _rename_inner(inner.attributes, op)


def _type_body(
    node: ir.Node,
    graph: ir.Graph,
    inputs: Sequence[ir.Value | None],
    opsets: Mapping[str, int],
) -> None:
    """Type the values of a Scan's or Loop's body from what the node is given."""
    states = graph.inputs if node.op_type == "Scan" else graph.inputs[2:]
    given = inputs if node.op_type == "Scan" else inputs[2:]
    for value, source in zip(states, given, strict=False):
        if value.type is None and source is not None:
            value.type = source.type
    if node.op_type == "Loop":
        for value, kind in zip(graph.inputs, (ir.DataType.INT64, ir.DataType.BOOL), strict=False):
            value.type = value.type or ir.TensorType(kind)
    for each in graph:
        infer_node(each, opsets)


def by_function_body(operator: str, version: int, opset: int) -> Adapter:
    """Return an adapter that spells an operator by its function body at an opset."""

    def spelled(op: Tape, node: ir.Node) -> Outputs:
        for index, value in enumerate(node.inputs):
            if value is not None and value.type is None:
                raise CannotConvert(f"the type of its input {index} is unknown", INFER_FIRST)
        body = function_body(node, version, opset)
        if body is None:
            raise CannotConvert(f"ONNX gives no function body for this use of {operator}")
        return inline(op, body, node)

    spelled.__name__ = f"{operator.lower()}_body"
    spelled.__doc__ = f"{operator}(...) -> the function body of {operator}-{version} in ONNX."
    return spelled


# Hand-written expansions stand in the files of their families; these need none.
def _spelled_by_bodies(operators: str) -> None:
    """Enter operators whose function bodies need no hand: those of their first versions."""
    for operator in operators.split():
        version = history(operator)[0]
        bodies = schema(operator, version).bodies
        assert bodies, operator
        enter = expansion(operator, version, opset=max(bodies))
        enter(by_function_body(operator, version, max(bodies)))


_spelled_by_bodies(
    "Bernoulli BlackmanWindow CausalConvWithState CenterCropPad DynamicQuantizeLinear HammingWindow"
    " HannWindow LinearAttention MeanVarianceNormalization NegativeLogLikelihoodLoss SequenceMap"
    " SoftmaxCrossEntropyLoss SwiGLU ThresholdedRelu"
)
unspelled(
    "ImageDecoder RegexFullMatch StringConcat StringSplit",
    20,
    "no older operator works on strings or encoded images in this way",
)
unspelled("StringNormalizer", 10, "no older operator works on strings")
unspelled("TfIdfVectorizer", 9, "no older operator counts n-grams")
unspelled(
    "SequenceAt SequenceConstruct SequenceEmpty SequenceErase SequenceInsert SequenceLength"
    " SplitToSequence ConcatFromSequence",
    11,
    "sequences do not exist before opset 11",
)
unspelled("Optional OptionalGetElement OptionalHasElement", 15, "optional values came with 15")
unspelled(
    "Acosh Asinh Atanh Compress Cosh Erf EyeLike IsNaN MaxUnpool NonZero OneHot Scatter Sinh",
    9,
    "nothing older computes this exactly",
)
unspelled(
    "ConvInteger MatMulInteger NonMaxSuppression QLinearConv QLinearMatMul ReverseSequence"
    " RoiAlign",
    10,
    "nothing older computes this exactly",
)
unspelled(
    "BitShift CumSum Det GatherElements GatherND ScatterND Unique",
    11,
    "nothing older computes this exactly",
)
unspelled("Scan", 8, "loops over a series came with opset 8")
