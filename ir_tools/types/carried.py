"""Attributes that carry an element type: where they lie, and how to write another one there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache

import onnx_ir as ir

from vlmpass.ir_tools.operators.schema import in_force
from vlmpass.ir_tools.operators.type_texts import parse, spell, with_dtypes
from vlmpass.ir_tools.system.opsets import newest_opset

__all__ = ["carries", "dtype_parameters", "retyped_attributes", "typing_attribute"]

Mapped = Mapping[ir.DataType, ir.DataType]

RESULT: Mapping[tuple[str, str], tuple[str, ir.DataType | None]] = {
    ("", "Cast"): ("to", None),
    ("", "BitCast"): ("to", None),
    ("", "EyeLike"): ("dtype", None),
    ("", "Bernoulli"): ("dtype", None),
    ("", "RandomNormal"): ("dtype", ir.DataType.FLOAT),
    ("", "RandomUniform"): ("dtype", ir.DataType.FLOAT),
    ("", "RandomNormalLike"): ("dtype", None),
    ("", "RandomUniformLike"): ("dtype", None),
    ("", "SequenceEmpty"): ("dtype", ir.DataType.FLOAT),
    ("", "BlackmanWindow"): ("output_datatype", ir.DataType.FLOAT),
    ("", "HammingWindow"): ("output_datatype", ir.DataType.FLOAT),
    ("", "HannWindow"): ("output_datatype", ir.DataType.FLOAT),
    ("", "MelWeightMatrix"): ("output_datatype", ir.DataType.FLOAT),
    ("", "DequantizeLinear"): ("output_dtype", None),
    ("com.microsoft", "GemmFloat8"): ("dtype", ir.DataType.FLOAT),
}
"""The attribute that decides the type of output 0, and what its absence means (None: an input)."""

_PRECISION = ("stash_type", "softmax_precision", "precision")
"""Attributes that name the type of interior arithmetic."""

_FLOAT = ir.DataType.FLOAT


@cache
def _interior(operator: tuple[str, str]) -> str | None:
    """Return the name of the operator's attribute for the type of interior arithmetic."""
    found = in_force(*operator, newest_opset())
    return None if found is None else next((n for n in _PRECISION if n in found.attributes), None)


def carries(operator: tuple[str, str]) -> str | None:
    """Return the name of the operator's attribute that carries an element type, if it has one."""
    result = RESULT.get(operator)
    return result[0] if result is not None else _interior(operator)


def typing_attribute(node: ir.Node) -> str | None:
    """Return the name of the attribute that types output 0: a number's, or a tensor by its own."""
    operator = (node.domain, node.op_type)
    if operator == ("", "ConstantOfShape"):
        return "value"
    return RESULT[operator][0] if operator in RESULT else None


def _result(node: ir.Node, mapping: Mapped) -> Iterator[ir.Attr]:
    """Yield the attribute deciding output 0 with the mapped type; a default is made explicit."""
    entry = RESULT.get((node.domain, node.op_type))
    if entry is None:
        return
    name, absent = entry
    attribute = node.attributes.get(name)
    if attribute is not None and attribute.is_ref():
        return
    dtype = ir.DataType(attribute.as_int()) if attribute is not None else absent
    if dtype is not None and dtype in mapping:
        yield ir.AttrInt64(name, mapping[dtype].value)


def _precision(node: ir.Node, mapping: Mapped) -> Iterator[ir.Attr]:
    """Yield the attribute of interior arithmetic: a type that goes away becomes FLOAT."""
    name = _interior((node.domain, node.op_type))
    attribute = node.attributes.get(name) if name is not None else None
    if name is None or attribute is None or attribute.is_ref():
        return
    dtype = ir.DataType(attribute.as_int())
    if dtype in mapping and dtype != _FLOAT:
        yield ir.AttrInt64(name, _FLOAT.value)


def _types(node: ir.Node, mapping: Mapped) -> Iterator[ir.Attr]:
    for attribute in node.attributes.values():
        if attribute.is_ref() or attribute.type != ir.AttributeType.TYPE_PROTO:
            continue
        text = spell(attribute.value.type)
        new = with_dtypes(text, mapping) if text is not None else None
        if new is not None and new != text and (kind := parse(new)) is not None:
            both = ir.TypeAndShape(kind, attribute.value.shape)
            yield ir.AttrTypeProto(attribute.name, both)


def _parameters(
    node: ir.Node, mapping: Mapped, parameters: Mapping[ir.OperatorIdentifier, frozenset[str]]
) -> Iterator[ir.Attr]:
    for name in sorted(parameters.get(node.op_identifier(), ())):
        attribute = node.attributes.get(name)
        if attribute is None or attribute.is_ref() or attribute.type != ir.AttributeType.INT:
            continue
        dtype = ir.DataType(attribute.as_int())
        if dtype in mapping:
            yield ir.AttrInt64(name, mapping[dtype].value)


def retyped_attributes(
    node: ir.Node, mapping: Mapped, parameters: Mapping[ir.OperatorIdentifier, frozenset[str]]
) -> list[ir.Attr]:
    """Return the attributes of a node to be set so that the mapped types take their place.

    Tensors are not among them.

    Args:
        node: The node.
        mapping: The new element type for each that is replaced.
        parameters: The functions' attributes that carry types, as `dtype_parameters` finds them.
    """
    return [
        *_result(node, mapping),
        *_precision(node, mapping),
        *_types(node, mapping),
        *_parameters(node, mapping, parameters),
    ]


def dtype_parameters(model: ir.Model) -> dict[ir.OperatorIdentifier, frozenset[str]]:
    """Return, for each function, its attributes that its body uses as an element type."""
    found: dict[ir.OperatorIdentifier, set[str]] = {key: set() for key in model.functions}
    changed = True
    while changed:
        changed = False
        for identifier, function in model.functions.items():
            for node in function.all_nodes():
                names = {carries((node.domain, node.op_type))} | found.get(
                    node.op_identifier(), set()
                )
                for attribute in node.attributes.values():
                    name = attribute.ref_attr_name
                    if name is not None and attribute.name in names:
                        changed |= name not in found[identifier]
                        found[identifier].add(name)
    return {identifier: frozenset(names) for identifier, names in found.items()}
