"""Which module of a program each node of a model belongs to, as the program itself names it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from functools import lru_cache

import onnx_ir as ir

from vlmpass.ir_tools.graph.walk import subgraphs
from vlmpass.ir_tools.inspecting.modules import module_of

__all__ = ["ModulePaths", "within"]

_MOST_PREFIX = 3
"""Modules that a program may have been wrapped in for the export."""


def within(path: str | None, module: str) -> bool:
    """Whether what is of one module is of another one, too, which may be the same."""
    return path is not None and (not module or path == module or path.startswith(f"{module}."))


class ModulePaths:
    """Modules by the nodes of a model's main graph.

    Args:
        model: As an exporter left it, whatever was done to it since.
        known: Every module of the program, by its dotted path.
    """

    def __init__(self, model: ir.Model, known: Collection[str]) -> None:
        self._known = frozenset(known)
        raw = {node: found for node in model.graph if (found := _raw(node)) is not None}
        self._prefix = self._of_most({*raw.values()})
        self.of_node = {node: self._resolved(path) for node, path in raw.items()}
        self.owner = {node: node for node in model.graph} | {
            inner: node
            for node in model.graph
            for graph in subgraphs(node)
            for inner in graph.all_nodes()
        }

    def users(self, value: ir.Value) -> Iterator[ir.Node]:
        """Yield the nodes of the main graph that a value is read by, inside of them as well."""
        for user, _ in value.uses():
            if user in self.owner:
                yield self.owner[user]

    def leaves(self, value: ir.Value, module: str) -> bool:
        """Whether a value is read outside of a module."""
        if value.is_graph_output():
            return True
        return any(not within(self.of_node.get(user), module) for user in self.users(value))

    def _of_most(self, raw: Collection[str]) -> tuple[str, str]:
        """Return what is taken off a model's paths, and put before them, so that most are known."""
        found = Counter(start for path in raw for start in _starts(path))
        wrapped = [start for start, count in found.items() if 2 * count >= len(raw)]
        around = {start for path in self._known for start in _starts(path)}
        own = [start for start in around if 2 * _below(start, self._known) >= len(self._known)]
        choices = [("", ""), *((each, "") for each in wrapped), *(("", each) for each in own)]
        return max(choices, key=lambda each: len({*self._hits(raw, each)}))

    def _hits(self, raw: Iterable[str], prefix: tuple[str, str]) -> Iterator[str]:
        for path in raw:
            yield from (form for form in _forms(_moved(path, prefix)) if form in self._known)

    def _resolved(self, path: str) -> str | None:
        """Return the innermost module that is known of all that a path goes through."""
        segments = path.split(".")
        for length in range(len(segments), -1, -1):
            found = next(self._hits([".".join(segments[:length])], self._prefix), None)
            if found:
                return found
        return ""


def _raw(node: ir.Node) -> str | None:
    path = module_of(node)
    if path is None:
        name = next((value.name for value in node.outputs if value.name), "") or ""
        path = ".".join(name.strip("/").split("/")[:-1]) if name.startswith("/") else None
    return path


def _starts(path: str) -> Iterator[str]:
    segments = path.split(".")
    for length in range(1, min(_MOST_PREFIX, len(segments)) + 1):
        yield ".".join(segments[:length])


def _below(start: str, known: Iterable[str]) -> int:
    return sum(within(path, start) for path in known)


def _moved(path: str, prefix: tuple[str, str]) -> str:
    off, on = prefix
    if off:
        path = "" if path == off else path.removeprefix(f"{off}.")
    return ".".join(filter(None, (on, path)))


@lru_cache(4096)
def _forms(path: str) -> tuple[str, ...]:
    """Return what a path may stand for.

    TorchScript's exporter writes a child of a Sequential as ``mlp.mlp.0``, and the second call of a
    module as ``act_1``.
    """
    once = re.sub(r"(?<![^.])(.+?)\.\1(?=\.\d)", r"\1", path)
    return tuple(dict.fromkeys((path, once, _first_call(path), _first_call(once))))


def _first_call(path: str) -> str:
    return ".".join(re.sub(r"_\d+$", "", each) for each in path.split("."))
