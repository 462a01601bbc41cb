"""Modules of the exported program, by the names that people give them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import onnx_ir as ir

from vlmpass.ir_tools.errors import ModelError
from vlmpass.ir_tools.inspecting.modules import module_of
from vlmpass.ir_tools.system.listed import listed, meant

__all__ = ["Scoping", "scoping"]

Path = tuple[str, ...]


@dataclass(frozen=True)
class Scoping:
    """The module of every node of the main graph.

    Attributes:
        paths: By node; None for one that says none, () for the program itself.
    """

    paths: Mapping[ir.Node, Path | None]

    def find(self, scope: str) -> Path:
        """Return the path of a module: as it is written, or as it ends inside of others.

        Raises:
            ModelError: There is none, or several.
        """
        wanted = tuple(scope.split("."))
        modules = {path[:end] for path in set(self.paths.values()) if path for end in _ends(path)}
        if wanted in modules:
            return wanted
        found = sorted(each for each in modules if each[-len(wanted) :] == wanted)
        if len(found) == 1:
            return found[0]
        if found:
            names = listed(".".join(each) for each in found)
            raise ModelError(f"there are several modules '{scope}'", remedy=f"name one of {names}")
        if not modules:
            raise ModelError(
                f"the model does not say which nodes are of '{scope}': its exporter left no scopes",
                remedy="name the values at the border",
            )
        near = {".".join(each[start:]) for each in modules for start in range(len(each))}
        ranked = sorted(near, key=lambda each: (each.count("."), each))
        raise ModelError(f"there is no module '{scope}'", remedy=meant(scope, ranked))

    def inside(self, path: Path) -> set[ir.Node]:
        """Return the nodes of a module, and those without one that serve it alone."""
        found = {
            node for node, at in self.paths.items() if at is not None and at[: len(path)] == path
        }
        for node in reversed(list(self.paths)):
            if self.paths[node] is None:
                users = {use.node for value in node.outputs for use in value.uses()}
                if users and users <= found and not any(v.is_graph_output() for v in node.outputs):
                    found.add(node)
        return found


def _ends(path: Path) -> range:
    return range(1, len(path) + 1)


def scoping(model: ir.Model) -> Scoping:
    """Return the modules that an exporter wrote down, else those that nodes are named after."""
    told = {node: module_of(node) for node in model.graph}
    if any(told.values()):
        return Scoping({node: None if at is None else _split(at, ".") for node, at in told.items()})
    return Scoping({node: _split(node.name or "", "[/.]")[:-1] or None for node in model.graph})


def _split(text: str, at: str) -> Path:
    return tuple(each for each in re.split(re.escape(at) if at == "." else at, text) if each)
