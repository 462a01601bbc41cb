"""How deep functions call each other, and how many nodes they stand for where they are called."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import onnx

from vlmpass.ir_tools.errors import ModelError

__all__ = ["MOST_NODES", "vet_calls"]

_DEEPEST = 100  # as in onnx's shape inference
MOST_NODES = 1_000_000
"""The most nodes that functions may stand for: each is looked at once for every call."""

_Key = tuple[str, str, str]


def vet_calls(proto: onnx.ModelProto) -> None:
    """Refuse functions that call themselves, nest too deep, or multiply beyond measure.

    Args:
        proto: A model whose functions have names of their own.

    Raises:
        ModelError: Naming the functions.
    """
    if not proto.functions:
        return
    called = {_key(function): _calls(function.node) for function in proto.functions}
    sizes = {_key(function): _count(function.node) for function in proto.functions}
    depths: dict[_Key, int] = {}
    for key in _callees_first(called):
        callees = [callee for callee in called[key] if callee in called]
        sizes[key] += sum(sizes[callee] for callee in callees)
        depths[key] = 1 + max((depths[callee] for callee in callees), default=0)
        if depths[key] > _DEEPEST:
            raise ModelError(
                f"functions call each other more than {_DEEPEST} deep, from {_title(key)} on",
                remedy="export the model with fewer nested functions",
            )
    total = sum(sizes.get(callee, 0) for callee in _calls(proto.graph.node))
    total = max(total, *sizes.values())
    if total > MOST_NODES:
        raise ModelError(
            f"the functions of the model stand for {total} nodes where they are called, more than "
            f"the {MOST_NODES} that are looked at",
            remedy="export it with functions that do not multiply",
        )


def _key(function: onnx.FunctionProto) -> _Key:
    return function.domain, function.name, function.overload


def _title(key: _Key) -> str:
    return f"{key[0]}::{key[1]}"


def _nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                yield from _nodes(graph.node)


def _calls(nodes: Iterable[onnx.NodeProto]) -> list[_Key]:
    return [(node.domain, node.op_type, node.overload) for node in _nodes(nodes)]


def _count(nodes: Iterable[onnx.NodeProto]) -> int:
    return sum(1 for _ in _nodes(nodes))


def _callees_first(called: dict[_Key, list[_Key]]) -> Iterator[_Key]:
    done: set[_Key] = set()
    for start in called:
        path = {} if start in done else {start: iter(called[start])}
        while path:
            key = next(reversed(path))
            callee = next(path[key], None)
            if callee is None:
                done.add(key)
                del path[key]
                yield key
            elif callee in path:
                names = list(path)
                circle = [*names[names.index(callee) :], callee]
                raise ModelError(
                    f"functions call themselves: {' -> '.join(map(_title, circle))}",
                    remedy="export the model again",
                )
            elif callee in called and callee not in done:
                path[callee] = iter(called[callee])
