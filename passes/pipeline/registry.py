"""Which passes exist: the entry points of this and other packages, each imported when named."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING

from vlmpass.ir_tools.errors import PipelineError

if TYPE_CHECKING:
    from vlmpass.passes.pipeline.base import Pass

__all__ = ["GROUP", "PASSES", "Registry"]

GROUP = "vlmpass.passes"


class Registry(Mapping[str, "type[Pass]"]):
    """Pass classes by name; listing the names imports none of them.

    Looking a name up raises KeyError for an unknown one and PipelineError for one whose package is
    broken, so that a broken package harms nobody who does not name its passes.
    """

    @cached_property
    def _entries(self) -> dict[str, list[EntryPoint]]:
        entries: dict[str, dict[str, EntryPoint]] = {}
        for entry in entry_points(group=GROUP):
            entries.setdefault(entry.name, {})[entry.value] = entry
        return {name: list(entries[name].values()) for name in sorted(entries)}

    def __getitem__(self, name: str) -> type[Pass]:
        from vlmpass.passes.pipeline.base import (
            Pass,  # imports onnx_ir, which listing the names need not
        )

        entry, *others = self._entries[name]
        if others:
            values = ", ".join(_origin(each) for each in (entry, *others))
            raise PipelineError(
                f"pass '{name}' is registered more than once, by {values}",
                remedy="uninstall one of these packages",
            )
        try:
            found = entry.load()
        except Exception as error:  # a plugin may raise anything while it is imported
            raise PipelineError(
                f"pass '{name}' of {_origin(entry)} cannot be loaded: "
                f"{type(error).__name__}: {error}",
                remedy="repair or uninstall that package",
            ) from error
        if not (isinstance(found, type) and issubclass(found, Pass) and found.name == name):
            raise PipelineError(f"{_origin(entry)} is not a Pass with the name '{name}'")
        return found

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


def _origin(entry: EntryPoint) -> str:
    package = f" ({entry.dist.name} {entry.dist.version})" if entry.dist is not None else ""
    return f"{entry.value}{package}"


PASSES = Registry()
"""The passes of this installation."""
