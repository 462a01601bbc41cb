"""Which values of a model are what modules of a program take and give."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
import onnx_ir as ir

from vlmpass.ir_tools.graph.constants import constant_of
from vlmpass.ir_tools.run.module_paths import ModulePaths, within
from vlmpass.ir_tools.run.program import Part
from vlmpass.ir_tools.types.typing import Typing, solve

__all__ = ["Look", "Match", "matched_parts"]

_Type: TypeAlias = "np.dtype[np.generic]"
Look = tuple[_Type, tuple[int, ...]]
"""Element type and shape of what was seen."""
_Parts = dict[tuple[str, bool], dict[int, list[tuple[Part, Look]]]]


class Match(NamedTuple):
    """What a value of a model is.

    Attributes:
        part: The program's tensor.
        module: The module that makes it.
    """

    part: Part
    module: str


def matched_parts(
    model: ir.Model, known: Mapping[str, str], seen: Mapping[Part, Look]
) -> dict[str, Match]:
    """Return which values of a model are tensors of a program, by name.

    A model's outputs are those of the program, in their order. What a module gives is what leaves
    it in the graph, and what it takes is what enters it, where the exporter says of nodes which
    module they are of. Where types and shapes leave it open which is which, nothing is said; nor
    where a module runs a number of times that the graph does not show.

    Args:
        model: The model.
        known: Every module by its path, and by other paths that lead to it.
        seen: What the modules took and gave on one set of inputs.
    """
    parts: _Parts = defaultdict(lambda: defaultdict(list))
    for part, look in seen.items():
        parts[part.path, part.taken][part.call].append((part, look))
    paths = ModulePaths(model, known)
    found = _Matched(model, paths, known)
    whole = {part.place: part for part, _ in parts.get(("", False), {}).get(0, [])}
    pairs = {
        str(value.name): whole[at] for at, value in enumerate(model.graph.outputs) if at in whole
    }
    # What several modules give, each another tensor, is said of the outermost of them.
    for taken in (False, True):
        for path in sorted((p for p, t in parts if t == taken and p), key=_depth):
            for name, part in found.of(parts[path, taken], path, taken):
                pairs.setdefault(name, part)
    makers = {value.name: paths.of_node.get(node) for node in model.graph for value in node.outputs}
    return {name: Match(part, _maker(makers.get(name), part)) for name, part in pairs.items()}


def _maker(path: str | None, part: Part) -> str:
    """Return the module that makes a tensor; what one takes was made in the one around it."""
    if part.path and not part.taken:
        return part.path
    return part.path.rpartition(".")[0] if path is None else path


def _depth(path: str) -> tuple[int, str]:
    return path.count("."), path


class _Matched:
    def __init__(self, model: ir.Model, paths: ModulePaths, known: Mapping[str, str]) -> None:
        self._paths, self._known = paths, known
        self._typing: Typing = solve(model)
        self._given: dict[str, list[ir.Value]] = defaultdict(list)
        self._taken: dict[str, dict[ir.Value, None]] = defaultdict(dict)
        for node, path in paths.of_node.items():
            for module in () if path is None else _around(path):
                self._given[self._name(module)] += [
                    value for value in node.outputs if value.name and paths.leaves(value, module)
                ]
                for value in node.inputs:
                    if value is not None and self._enters(value, module):
                        self._taken[self._name(module)].setdefault(value)

    def _name(self, module: str) -> str:
        return self._known.get(module, module)

    def _enters(self, value: ir.Value, module: str) -> bool:
        maker = value.producer()
        if not value.name or value.is_initializer() or constant_of(value) is not None:
            return False
        return maker is not None and not within(self._paths.of_node.get(maker), module)

    def of(
        self, calls: Mapping[int, Sequence[tuple[Part, Look]]], path: str, taken: bool
    ) -> Iterator[tuple[str, Part]]:
        """Yield values and parts of a module that are the same."""
        values = [*self._taken[path]] if taken else self._given[path]
        if len(calls) == 1:
            yield from self._told_apart(values, next(iter(calls.values())))
            return
        # Called again and again: in the order of the graph, if all of it is seen there.
        alone = [each[0] for _, each in sorted(calls.items()) if len(each) == 1]
        if len(alone) == len(calls) == len(values):
            for value, (part, look) in zip(values, alone, strict=True):
                if self._may_be(value, look):
                    yield str(value.name), part

    def _told_apart(
        self, values: Sequence[ir.Value], parts: Sequence[tuple[Part, Look]]
    ) -> Iterator[tuple[str, Part]]:
        for part, look in parts:
            fitting = [value for value in values if self._may_be(value, look)]
            if len(fitting) == 1 and sum(self._may_be(fitting[0], each) for _, each in parts) == 1:
                yield str(fitting[0].name), part

    def _may_be(self, value: ir.Value, look: Look) -> bool:
        """Whether a value has the kind of type and the shape of what was seen."""
        dtype, shape = look
        known = self._typing.dtype(value)
        if known is not None and _kind(known.numpy()) != _kind(dtype):
            return False
        if value.shape is None:
            return True
        return len(value.shape) == len(shape) and all(
            not isinstance(dim, int) or dim == size
            for dim, size in zip(value.shape, shape, strict=True)
        )


def _around(path: str) -> Iterator[str]:
    """Yield the modules that a path goes through, without the whole."""
    segments = path.split(".") if path else []
    for length in range(1, len(segments) + 1):
        yield ".".join(segments[:length])


def _kind(dtype: _Type) -> str:
    return {"V": "f", "u": "i"}.get(dtype.kind, dtype.kind)
