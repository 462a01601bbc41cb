"""What onnx says about operators: versions, formals, defaults, bodies.

All of it is read from onnx.defs once per operator and version and kept as plain Python data.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from functools import cache

import onnx
import onnx_ir as ir
from onnx import defs

from vlmpass.ir_tools.operators.contrib import contrib
from vlmpass.ir_tools.operators.formal import Formal, Schema
from vlmpass.ir_tools.system.opsets import OLDEST_OPSET

__all__ = [
    "Formal",
    "Schema",
    "default_opset",
    "function_body",
    "history",
    "in_force",
    "ir_version_of",
    "is_legacy",
    "may_lack",
    "named_type",
    "needed_graphs",
    "needed_inputs",
    "numbered_type",
    "operators",
    "schema",
    "since",
]

# The lowest ir_version that may carry each opset, as onnx released them; tests hold it against
# onnx's own table. IR 3 demands that initializers are inputs too, so nothing below 4 is written.
_IR_VERSIONS = (
    (7, 4), (10, 5), (11, 6), (12, 7), (15, 8), (19, 9), (21, 10), (23, 11), (24, 12), (25, 13),
    (28, 14),
)  # fmt: skip


@cache
def _histories() -> dict[str, dict[int, defs.OpSchema]]:
    found: dict[str, dict[int, defs.OpSchema]] = {}
    for each in defs.get_all_schemas_with_history():
        if each.domain == "":
            found.setdefault(each.name, {})[each.since_version] = each
    return {name: dict(sorted(found[name].items())) for name in sorted(found)}


def operators() -> tuple[str, ...]:
    """Return every operator of the default domain, retired ones included, by name."""
    return tuple(_histories())


@cache
def history(operator: str) -> tuple[int, ...]:
    """Return an operator's since-versions, ascending; empty for an unknown operator."""
    return tuple(_histories().get(operator, ()))


@cache
def since(operator: str, opset: int) -> int | None:
    """Return the since-version in force at an opset; None where the operator does not exist."""
    versions = history(operator)
    index = bisect_right(versions, opset)
    return versions[index - 1] if index else None


def is_legacy(operator: str, opset: int) -> bool:
    """Say whether an operator is of a version from before opset 7, which changed since."""
    return opset < OLDEST_OPSET and since(operator, opset) != since(operator, OLDEST_OPSET)


def _formal(formal: defs.OpSchema.FormalParameter) -> Formal:
    kind = defs.OpSchema.FormalParameterOption
    return Formal(
        formal.name,
        formal.type_str,
        formal.option == kind.Optional,
        formal.option == kind.Variadic,
        formal.is_homogeneous,
        frozenset(formal.types),
    )


@cache
def schema(operator: str, version: int) -> Schema:
    """Return an operator of the default domain at one of its since-versions."""
    return _read(_histories()[operator][version])


@cache
def needed_inputs(operator: str) -> int:
    """Return how many inputs an operator takes at every version without leaving one out."""
    counts = []
    for version in history(operator):
        formals = schema(operator, version).inputs
        open_ = (i for i, each in enumerate(formals) if each.optional or each.variadic)
        counts.append(next(open_, len(formals)))
    return min(counts, default=0)


def may_lack(node: ir.Node, index: int, opsets: Mapping[str, int]) -> bool:
    """Whether a node can do without one of its inputs; False for an operator that onnx lacks.

    Args:
        node: A node of any domain.
        index: Which of its inputs.
        opsets: Imported opset version by domain.
    """
    found = in_force(node.domain, node.op_type, opsets.get(node.domain, 1))
    return found is not None and index < len(found.inputs) and found.inputs[index].optional


@cache
def needed_graphs(operator: str) -> tuple[str, ...]:
    """Return the attributes with graphs that an operator has at every version, such as `body`."""
    graph = ir.AttributeType.GRAPH
    versions = [schema(operator, version) for version in history(operator)]
    needed = [{n for n in each.required if each.attributes[n] == graph} for each in versions]
    return tuple(sorted(set.intersection(*needed))) if needed else ()


@cache
def in_force(domain: str, operator: str, opset: int) -> Schema | None:
    """Return what is in force at a domain's opset; None for an operator that nobody knows.

    onnx knows the standard domains, and `contrib.txt` what ONNX Runtime registers beside them.

    Args:
        domain: Empty for the default one.
        operator: Its name.
        opset: Version of the domain.
    """
    try:
        return _read(defs.get_schema(operator, opset, domain))
    except defs.SchemaError:
        return contrib().get((domain, operator))


def _read(found: defs.OpSchema) -> Schema:
    defaults = {
        name: ir.serde.deserialize_attribute(attribute.default_value)
        for name, attribute in found.attributes.items()
        if attribute.default_value.name
    }
    # What onnx's own stubs leave out, here and below, its extension module has.
    bodies = {
        *found.function_opset_versions,  # type: ignore[attr-defined]
        *found.context_dependent_function_opset_versions,  # type: ignore[attr-defined]
    }
    return Schema(
        found.name,
        found.since_version,
        tuple(map(_formal, found.inputs)),
        tuple(map(_formal, found.outputs)),
        found.min_input,
        found.max_input,
        found.max_output,
        {
            name: ir.AttributeType[str(each.type).rpartition(".")[2]]
            for name, each in found.attributes.items()
        },
        frozenset(name for name, each in found.attributes.items() if each.required),
        defaults,
        found.deprecated,
        tuple(sorted(bodies)),
    )


def function_body(node: ir.Node, version: int, opset: int) -> ir.Function | None:
    """Return the function body that ONNX gives for a node.

    Args:
        node: The node, of the default domain; bodies that depend on context look at its inputs'
            types and shapes.
        version: The since-version it is written for.
        opset: One of the schema's `bodies`; the body's nodes are valid there.

    Returns:
        The body, or None if ONNX has none for this use of the operator. Outputs that the body
        leaves out are not among its outputs.
    """
    found = _histories()[node.op_type][version]
    if opset in found.context_dependent_function_opset_versions:  # type: ignore[attr-defined]
        types = [_type_proto(value).SerializeToString() for value in node.inputs]
        proto = _with_all_outputs(node).SerializeToString()
        get = found.get_context_dependent_function_with_opset_version  # type: ignore[attr-defined]
        data = get(opset, proto, types)
    else:
        data = found.get_function_with_opset_version(opset)  # type: ignore[attr-defined]
    if not data:
        return None
    body = onnx.FunctionProto.FromString(data)
    computed = {name for each in body.node for name in each.output} | set(body.input)
    while body.output and body.output[-1] not in computed:
        body.output.pop()
    return ir.serde.deserialize_function(body)


def _with_all_outputs(node: ir.Node) -> onnx.NodeProto:
    """Return a node whose left-out outputs have names, as what writes bodies asks for them."""
    proto = ir.serde.serialize_node(node)
    names = [value.name or f"left_out_{index}" for index, value in enumerate(node.outputs)]
    proto.output[:] = names  # serialised, it ends at its last output with a name
    return proto


def _type_proto(value: ir.Value | None) -> onnx.TypeProto:
    return onnx.TypeProto() if value is None else ir.serde.serialize_value(value).type


def named_type(given: ir.Attr) -> ir.DataType | None:
    """Return the element type that an attribute names, by number or, below opset 6, by a word.

    None where it names none.
    """
    if given.type == ir.AttributeType.STRING:
        return ir.DataType.__members__.get(given.as_string().upper())
    return numbered_type(given.as_int()) if given.type == ir.AttributeType.INT else None


def numbered_type(number: int) -> ir.DataType | None:
    """Return the element type of a number; None for one that is no type's."""
    return ir.DataType(number) if number in _TYPE_NUMBERS else None


_TYPE_NUMBERS = frozenset(each.value for each in ir.DataType)


def ir_version_of(opset: int) -> int:
    """Return the lowest ir_version that carries an opset; at least 4."""
    known = max((version for first, version in _IR_VERSIONS if first <= opset), default=4)
    return known if opset <= 28 else max(known, int(onnx.IR_VERSION))


def default_opset(imports: Mapping[str, int]) -> int | None:
    """Return the version of the default domain that is imported, if it is."""
    return imports.get("", imports.get("ai.onnx"))
