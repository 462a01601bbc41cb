"""Initializers of equal content become one."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from vlmpass.ir_tools.graph.contents import Kind, elements_of, kind_of
from vlmpass.ir_tools.graph.walk import Scope, scopes
from vlmpass.ir_tools.system.collector import without_collector
from vlmpass.ir_tools.weights import as_weight
from vlmpass.passes.pipeline.base import Pass
from vlmpass.passes.pipeline.values import size_in_bytes

__all__ = ["DedupeInitializers"]

_DIGESTED = 64
"""Bytes from which on contents are told apart by their digest."""
_SMALL = 1024
"""Bytes up to which a tensor is read whole."""


@dataclass(frozen=True)
class DedupeInitializers(Pass):
    """Let one initializer stand for all of equal type, shape and bytes.

    The first one stays, in a subgraph the enclosing graph's. Initializers that are inputs or
    outputs of a graph stay in any case.
    """

    name = "dedupe-initializers"
    nothing: ClassVar[str] = "no two initializers are equal"
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
        places = [scope for scope in scopes(model) if not scope.in_function]
        return _Shared(size_in_bytes("limit", self.limit)).merge(places)


class _Shared:
    """The initializers in sight by kind and content, the latter read where a kind occurs twice."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._visible: list[dict[Hashable, ir.Value]] = []

    def merge(self, places: Sequence[Scope]) -> bool:
        """Merge the initializers of graphs, parents first, into those in sight."""
        held = [list(_mergeable(scope)) for scope in places]
        count = Counter(kind for each in held for _, _, kind in each)
        changed = False
        for scope, each in zip(places, held, strict=True):
            self._visible = [*self._visible[: scope.depth], {}]
            # Outputs come first, for they cannot go.
            for value, tensor, kind in sorted(each, key=lambda one: not one[0].is_graph_output()):
                if count[kind] > 1:
                    changed |= self._merge(value, (kind, _content(tensor, self._limit)))
        return changed

    def _merge(self, value: ir.Value, key: Hashable) -> bool:
        """Let an initializer of equal content stand for a value, if there is one."""
        known = next((each[key] for each in self._visible if key in each), None)
        if known is None:
            self._visible[-1][key] = value
            return False
        if value.is_graph_output():
            return False
        value.replace_all_uses_with(known)
        assert value.graph is not None
        del value.graph.initializers[value.name or ""]
        return True


def _mergeable(scope: Scope) -> Iterator[tuple[ir.Value, ir.TensorProtocol, Kind]]:
    for value in scope.initializers.values():
        tensor = value.const_value
        if tensor is not None and not value.is_graph_input():
            yield value, tensor, kind_of(tensor)


def _content(tensor: ir.TensorProtocol, limit: int) -> Hashable:
    """Return what is equal for equal contents, as far as that may be found out."""
    if tensor.dtype == ir.DataType.STRING:
        return tuple(tensor.numpy().ravel())
    size = tensor.nbytes
    if size > limit:
        return as_weight(tensor).expression
    if size <= _SMALL:
        data = elements_of(tensor)
        return data if size <= _DIGESTED else hashlib.sha256(data).digest()
    digest = hashlib.sha256()
    for chunk in as_weight(tensor).chunks():
        digest.update(chunk)
    return digest.digest()
