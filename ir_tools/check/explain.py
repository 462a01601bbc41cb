"""What the onnx checker says, in words that name values, types and remedies."""

from __future__ import annotations

import re
from collections.abc import Callable

import onnx
import onnx.defs
import onnx_ir as ir

from vlmpass.ir_tools.errors import cut
from vlmpass.ir_tools.graph.describe import describe_type

__all__ = ["explain"]

_Explained = tuple[str, str]


def explain(node: ir.Node, said: str, opset: int) -> _Explained:
    """Return reason and remedy, each one line, for what the checker said about a node.

    Words that are not known here are returned as they are, without the prefixes.

    Args:
        node: What it is about.
        said: The message, any number of lines.
        opset: The version of the node's domain that the model imports.
    """
    said = cut(said)  # a pattern may take the square of a word's length
    for pattern, explained in _KNOWN:
        match = re.search(pattern, said)
        if match:
            return explained(node, match, opset)
    words = said.partition("==> Context")[0].strip().splitlines()[0]
    words = re.sub(r"Inference error\(s\):|\(op_type:[^)]*\):?|\[\w+Error\]", "", words)
    return re.sub(r"\s+", " ", words).strip(" :."), ""


def _type_name(number: str) -> str:
    return ir.DataType(int(number)).name.lower()


def _inputs(node: ir.Node) -> str:
    given = (value for value in node.inputs if value is not None)
    return ", ".join(f"'{value.name}' {describe_type(value) or '?'}" for value in given)


def _unsupported(node: ir.Node, match: re.Match[str], opset: int) -> _Explained:
    reason = f"its {match[1]} may not be {match[2]} at this opset"
    if first := _admitting(node, match[1], match[2], opset):
        return reason, f"convert to opset {first} or later, or run unify-dtype or repair-types"
    return reason, "run unify-dtype or repair-types: no later opset admits the type"


def _admitting(node: ir.Node, formal: str, dtype: str, opset: int) -> int | None:
    """Return the first later opset at which an operand may have a type; None if there is none."""
    found = (
        schema
        for schema in onnx.defs.get_all_schemas_with_history()
        if (schema.domain, schema.name) == (node.domain, node.op_type)
        and schema.since_version > opset
        and not schema.deprecated
    )
    for schema in sorted(found, key=lambda schema: schema.since_version):
        for each in (*schema.inputs, *schema.outputs):
            if each.name == formal and f"tensor({dtype})" in each.types:
                return int(schema.since_version)
    return None


def _bound_twice(node: ir.Node, match: re.Match[str], opset: int) -> _Explained:
    return f"its inputs are bound to different types: {_inputs(node)}", "run repair-types"


def _arity(node: ir.Node, match: re.Match[str], opset: int) -> _Explained:
    given, low, high = match[2], match[3], match[4]
    takes = low if low == high else f"{low} to {high}"
    return f"it has {given} {match[1]}s, {node.op_type} takes {takes}", ""


def _other_type(node: ir.Node, match: re.Match[str], opset: int) -> _Explained:
    return f"it makes {_type_name(match[1])}, but {_type_name(match[2])} is declared", ""


def _other_dim(node: ir.Node, match: re.Match[str], opset: int) -> _Explained:
    reason = f"it makes {match[2]} in dimension {match[1]}, but {match[3]} is declared"
    return reason, "drop the stale shape (infer) or repair what feeds the node"


def _other_rank(node: ir.Node, match: re.Match[str], opset: int) -> _Explained:
    reason = f"it makes rank {match[1]}, but rank {match[2]} is declared"
    return reason, "drop the stale shape (infer) or repair what feeds the node"


def _no_operator(node: ir.Node, match: re.Match[str], opset: int) -> _Explained:
    name, opset = match[1], int(match[2])
    versions = [
        schema.since_version
        for schema in onnx.defs.get_all_schemas_with_history()
        if schema.name == name and schema.domain == node.domain and not schema.deprecated
    ]
    if not versions:
        return f"there is no operator {name} in domain '{node.domain or 'ai.onnx'}'", ""
    if min(versions) > opset:
        return f"{name} does not exist in opset {opset}", f"it does from opset {min(versions)} on"
    return _ended(node, match, opset)


def _unreadable(node: ir.Node, match: re.Match[str], opset: int) -> _Explained:
    return f"its shape depends on the values of '{match[1]}', which cannot be read", ""


def _ended(node: ir.Node, match: re.Match[str], opset: int) -> _Explained:
    name, opset = match[1], int(match[2])
    last = max(
        schema.since_version
        for schema in onnx.defs.get_all_schemas_with_history()
        if schema.name == name and schema.domain == node.domain and schema.deprecated
    )
    return f"{name} no longer exists in opset {opset}", f"it does up to opset {last - 1}"


_Explain = Callable[[ir.Node, "re.Match[str]", int], _Explained]
_KNOWN: tuple[tuple[str, _Explain], ...] = (
    (r"(\w+) typestr: \S+, has unsupported type: (?:tensor\()?(\w+)", _unsupported),
    (r"\w+ has inconsistent type", _bound_twice),
    (r"Inferred elem type differs from existing elem type: \((\d+)\) vs \((\d+)\)", _other_type),
    (r"differ in dimension (\d+): \((\S+)\) vs \((\S+)\)", _other_dim),
    (r"differ in rank: \((\d+)\) vs \((\d+)\)", _other_rank),
    (r"has (input|output) size (\d+) not in range \[min=(\d+), max=(\d+)\]", _arity),
    (r"Op registered for (\w+) is deprecated in domain_version of (\d+)", _ended),
    (r"Cannot parse data from external tensors.*for tensor: (\S+)", _unreadable),
    (r"No Op registered for (\w+) with domain_version of (\d+)", _no_operator),
)
