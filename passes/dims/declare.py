"""Names and sizes of axes as a model declares them, found, replaced and brought up to date."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx_ir as ir

from vlmpass.ir_tools.graph.walk import all_values
from vlmpass.ir_tools.shapes.algebra import Dim
from vlmpass.ir_tools.shapes.analysis import Facts

__all__ = ["Axis", "axes_of", "find_axis", "substitute", "update_shapes"]


@dataclass(frozen=True)
class Axis:
    """One axis of an input of the main graph."""

    value: ir.Value
    index: int

    @property
    def size(self) -> int | ir.SymbolicDim:
        """What is declared about it."""
        assert self.value.shape is not None
        return self.value.shape[self.index]

    def set(self, size: int | str) -> None:
        """Declare a size or a name."""
        assert self.value.shape is not None
        dims = list(self.value.shape)
        dims[self.index] = ir.SymbolicDim(size) if isinstance(size, str) else size
        self.value.shape = ir.Shape(dims)


def axes_of(model: ir.Model) -> list[Axis]:
    """Return every axis of every input that has a shape, initializers left out."""
    return [
        Axis(value, index)
        for value in model.graph.inputs
        if value.shape is not None and not value.is_initializer()
        for index in range(len(value.shape))
    ]


def find_axis(model: ir.Model, place: str) -> Axis | None:
    """Return the axis that ``input:axis`` stands for, None if there is none."""
    name, _, number = place.rpartition(":")
    for axis in axes_of(model):
        assert axis.value.shape is not None
        if axis.value.name == name and number in (
            str(axis.index),
            str(axis.index - len(axis.value.shape)),
        ):
            return axis
    return None


def substitute(model: ir.Model, sizes: Mapping[str, int | str]) -> bool:
    """Replace names of axes in every declared shape, also inside expressions such as past+seq."""
    changed = False
    for value in all_values(model):
        if value.shape is None or value.shape.is_static():
            continue
        dims = [_substituted(dim, sizes) for dim in value.shape]
        if dims != list(value.shape):
            value.shape = ir.Shape(dims)
            changed = True
    return changed


def _substituted(dim: int | ir.SymbolicDim, sizes: Mapping[str, int | str]) -> int | ir.SymbolicDim:
    if isinstance(dim, int) or dim.value is None:
        return dim
    if dim.value in sizes:
        size = sizes[dim.value]
        return ir.SymbolicDim(size) if isinstance(size, str) else size
    numbers = {name: size for name, size in sizes.items() if isinstance(size, int)}
    if not numbers:
        return dim
    try:
        return dim.evaluate(numbers)
    except ValueError:
        return dim  # a name that is no expression, such as "batch size"


def update_shapes(model: ir.Model, facts: Facts, names: Mapping[Dim, str]) -> bool:
    """Bring every declared shape in line with what is proven.

    A proven size replaces whatever is declared; a declared size that is not proven goes where the
    axis turned out to depend on a named one, and stays otherwise.

    Args:
        model: The model.
        facts: About all its values.
        names: Names of expressions, such as those of the inputs' axes.
    """
    changed = False
    for value in all_values(model):
        shape = facts[value].shape
        if shape is None or value.type is None or value.is_initializer():
            continue
        if value.is_graph_input():
            continue
        old = list(value.shape) if value.shape is not None else [None] * len(shape)
        if len(old) != len(shape):
            old = [None] * len(shape)
        dims = [_updated(new, was, names) for new, was in zip(shape, old, strict=True)]
        if value.shape is None or dims != list(value.shape):
            value.shape = ir.Shape(dims)
            changed = True
    return changed


def _updated(
    new: Dim, old: int | ir.SymbolicDim | None, names: Mapping[Dim, str]
) -> int | ir.SymbolicDim | None:
    if isinstance(new, int):
        return new
    if new in names:
        return ir.SymbolicDim(names[new])
    return ir.SymbolicDim(None if isinstance(old, int) or old is None else old.value)
