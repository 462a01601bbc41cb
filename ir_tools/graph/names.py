"""Fresh names that collide with nothing in a model."""

from __future__ import annotations

from collections.abc import Container, Iterable

import onnx_ir as ir

from vlmpass.ir_tools.graph.walk import scopes

__all__ = ["Names"]


class Names:
    """All value and node names of a model, and fresh ones beside them.

    Value names are kept unique over the whole model, subgraphs and functions together, so that a
    name taken here shadows nothing anywhere.
    """

    def __init__(self) -> None:
        self._values: set[str] = set()
        self._nodes: set[str] = set()
        self._next: dict[str, int] = {}
        self._model: ir.Model | None = None
        self._gone: Container[ir.Node] = ()

    @classmethod
    def of(cls, model: ir.Model, gone: Container[ir.Node] = ()) -> Names:
        """Return the names of a model, collected when one is first asked for.

        Args:
            model: The model.
            gone: Nodes that have left it and are in their graphs still: their names are free.
        """
        names = cls()
        names._model, names._gone = model, gone
        return names

    def copy(self) -> Names:
        """Return the same names, to take fresh ones that may never come into the model."""
        self._collect()
        names = Names()
        names._values, names._nodes = set(self._values), set(self._nodes)
        names._next = dict(self._next)
        return names

    def _collect(self) -> None:
        model, self._model = self._model, None
        if model is None:
            return
        for scope in scopes(model):
            self._values.update(value.name for value in scope.graph.inputs if value.name)
            self._values.update(scope.initializers)
            for node in scope.graph:
                if node in self._gone:
                    continue
                if node.name:
                    self._nodes.add(node.name)
                self._values.update(value.name for value in node.outputs if value.name)

    def value(self, hint: str) -> str:
        """Return the hint itself if no value has that name yet, else hint_1, hint_2, …"""
        return self._fresh(self._values, hint)

    def node(self, hint: str) -> str:
        """Return the hint itself if no node has that name yet, else hint_1, hint_2, …"""
        return self._fresh(self._nodes, hint)

    def note(self, values: Iterable[str]) -> None:
        """Take names as they are, whether something has them already or not."""
        self._collect()
        self._values.update(values)

    def forget(self, *, values: Iterable[str | None], nodes: Iterable[str | None]) -> None:
        """Give back names that nothing in the model has any more."""
        self._values.difference_update(name for name in values if name)
        self._nodes.difference_update(name for name in nodes if name)

    def _fresh(self, taken: set[str], hint: str) -> str:
        self._collect()
        name = hint
        while name in taken:
            self._next[hint] = self._next.get(hint, 0) + 1
            name = f"{hint}_{self._next[hint]}"
        taken.add(name)
        return name
