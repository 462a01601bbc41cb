"""A node in one line, and the node of an error among its neighbours."""

from __future__ import annotations

import onnx_ir as ir

__all__ = ["describe_type", "name_node", "neighbourhood"]

_NEIGHBOURS = 3
_LONGEST = 160


def name_node(node: ir.Node) -> str:
    """Return name and operator, such as ``node '/l/0/Add' (Add)``."""
    operator = f"{node.domain}:{node.op_type}" if node.domain else node.op_type
    if node.name:
        return f"node '{node.name}' ({operator})"
    first = next((value.name for value in node.outputs if value.name), None)
    return f"the unnamed {operator} that makes '{first}'" if first else f"an unnamed {operator}"


def describe_type(value: ir.Value) -> str:
    """Return element type and shape, such as ``float16[batch,8]``; empty where unknown."""
    if isinstance(value.type, ir.TensorType):
        return value.type.dtype.name.lower() + _dims(value.shape)
    return "" if value.type is None else str(value.type)


def _dims(shape: ir.Shape | None) -> str:
    if shape is None:
        return ""
    dims = (dim if isinstance(dim, int) else (dim.value or "?") for dim in shape)
    return f"[{','.join(map(str, dims))}]"


def _value(value: ir.Value | None) -> str:
    return "-" if value is None else f"{value.name} {describe_type(value)}".rstrip()


def _describe_node(node: ir.Node) -> str:
    """Return a node in one line: name, operator, inputs and outputs with their types."""
    operator = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
    outputs = ", ".join(_value(value) for value in node.outputs)
    text = f"{outputs} = {operator}({', '.join(_value(value) for value in node.inputs)})"
    name = f"{node.name}: " if node.name else ""
    return _shorten(name + text)


def _shorten(line: str) -> str:
    return line if len(line) <= _LONGEST else line[: _LONGEST - 1] + "…"


def neighbourhood(node: ir.Node) -> list[str]:
    """Return the node's line, marked by ``>``, between up to 3 producers and 3 users of it.

    Where vlmpass made the node, a last line says which pass and rule did.
    """
    producers = [value.producer() for value in node.inputs if value is not None]
    before = list(dict.fromkeys(each for each in producers if each is not None))
    users = (use.node for value in node.outputs for use in value.uses())
    after = list(dict.fromkeys(users))
    lines = [f"    {_describe_node(each)}" for each in before[:_NEIGHBOURS]]
    lines.append(f"  > {_describe_node(node)}")
    lines += [f"    {_describe_node(each)}" for each in after[:_NEIGHBOURS]]
    made = [
        f"{role} {node.metadata_props[key]}"
        for key, role in (("vlmpass.rule", "rule"), ("vlmpass.pass", "pass"))
        if key in node.metadata_props
    ]
    return [*lines, f"    made by {', '.join(made)}"] if made else lines
