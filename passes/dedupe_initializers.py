"""Initializers of equal content become one."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from vlmpass.ir_tools.collector import without_collector
from vlmpass.ir_tools.walk import subgraphs
from vlmpass.ir_tools.weights import as_weight
from vlmpass.passes.base import Pass
from vlmpass.passes.values import size_in_bytes

__all__ = ["DedupeInitializers"]

_DIGESTED = 64
"""Bytes from which on contents are told apart by their digest."""


@dataclass(frozen=True)
class DedupeInitializers(Pass):
    """Let one initializer stand for all of equal type, shape and bytes.

    The first one stays, in a subgraph the enclosing graph's. Initializers that are inputs or
    outputs of a graph stay in any case.
    """

    name = "dedupe-initializers"
    keeps_values: ClassVar[bool] = True

    limit: str = "1MB"
    """Up to which size contents are compared byte by byte, through a digest; larger ones are equal
    only if they are the same range of a file or the same tensor."""

    def __post_init__(self) -> None:
        """Check that the limit is a size."""
        super().__post_init__()
        size_in_bytes("limit", self.limit)

    @without_collector
    def run(self, model: ir.Model) -> bool:
        """Merge equal initializers of the graph and its subgraphs."""
        return _Shared(model.graph, size_in_bytes("limit", self.limit)).visit(model.graph)


_Type = tuple[ir.DataType, tuple[int, ...]]


class _Shared:
    """The initializers in sight by type and content, the latter read where a type occurs twice."""

    def __init__(self, graph: ir.Graph, limit: int) -> None:
        self._limit = limit
        self._count = Counter(
            _type(tensor) for each in (graph, *graph.subgraphs()) for _, tensor in _mergeable(each)
        )
        self._visible: dict[Hashable, ir.Value] = {}

    def visit(self, graph: ir.Graph) -> bool:
        """Merge the initializers of a graph, then those of its subgraphs, into those in sight."""
        changed = False
        added: list[Hashable] = []
        for value, tensor in sorted(_mergeable(graph), key=lambda each: not _is_output(each[0])):
            if self._count[_type(tensor)] < 2:
                continue
            key: Hashable = (_type(tensor), _content(tensor, self._limit))
            known = self._visible.get(key)
            if known is None:
                self._visible[key] = value
                added.append(key)
            elif not _is_output(value):
                value.replace_all_uses_with(known)
                del graph.initializers[value.name or ""]
                changed = True
        for node in graph:
            for inner in subgraphs(node):
                changed |= self.visit(inner)
        for key in added:
            del self._visible[key]
        return changed


def _mergeable(graph: ir.Graph) -> list[tuple[ir.Value, ir.TensorProtocol]]:
    return [
        (value, value.const_value)
        for value in graph.initializers.values()
        if value.const_value is not None and not value.is_graph_input()
    ]


def _is_output(value: ir.Value) -> bool:
    return value.is_graph_output()


def _type(tensor: ir.TensorProtocol) -> _Type:
    return tensor.dtype, tuple(tensor.shape.numpy())


def _content(tensor: ir.TensorProtocol, limit: int) -> Hashable:
    """Return what is equal for equal contents, as far as that may be found out."""
    if tensor.dtype == ir.DataType.STRING:
        return tuple(tensor.numpy().ravel())
    if tensor.nbytes > limit:
        return as_weight(tensor).expression
    if isinstance(tensor, ir.Tensor) and tensor.nbytes <= _DIGESTED:
        return tensor.tobytes()
    digest = hashlib.sha256()
    for chunk in as_weight(tensor).chunks():
        digest.update(chunk)
    return digest.digest()
