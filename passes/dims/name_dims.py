"""The pass name-dims: fixed axes become dynamic, where the whole graph is proven to follow."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from vlmpass.ir_tools.errors import Refused
from vlmpass.ir_tools.graph.walk import Scope
from vlmpass.ir_tools.shapes import Dim, facts_of, visit_scope
from vlmpass.ir_tools.system.collector import without_collector
from vlmpass.ir_tools.system.listed import listed
from vlmpass.passes.dims.declare import Axis, axes_of, find_axis, substitute, update_shapes
from vlmpass.passes.dims.generalize_axes import Debaker
from vlmpass.passes.pipeline.base import OptionError, Pass

__all__ = ["NameDims"]

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class NameDims(Pass):
    """Name axes of inputs, and make those that were fixed dynamic.

    Traced sizes baked into Reshape, Expand and Concat are replaced by 0, -1 or sizes computed from
    the inputs, where that follows from the sizes around them. Anything else that works at the
    traced size only is refused, with every node and constant that stands in the way. Two axes that
    get one name must have the same size whenever the model runs.
    """

    name = "name-dims"
    edits_shapes: ClassVar[bool] = True

    dims: tuple[tuple[str, str], ...] = ()
    """Names by place, such as pixel_values:0=batch."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for place, name in self.dims:
            if not name or name.lstrip("-").isdigit():
                raise OptionError(place, f"'{name}' is no name", remedy="set-dims sets sizes")

    @without_collector
    def run(self, model: ir.Model) -> bool:
        """Name, repair, and prove."""
        fixed, changed = self._rename(model)
        if not fixed:
            return changed
        scope = Scope(model.graph, model.graph, 0)
        before = facts_of(model)
        visit_scope(before, scope, lambda node, scope: None)
        after = facts_of(model)
        names: dict[Dim, str] = {}
        by_name: dict[str, Dim] = {}
        for axis, name in fixed:
            axis.set(name)
        wanted = {name for _, name in fixed}
        for axis in axes_of(model):
            name = "" if isinstance(axis.size, int) else axis.size.value or ""
            if name in wanted:
                dim = by_name.setdefault(name, after.algebra.axis(axis.value, axis.index, 1))
                after.declare(axis.value, axis.index, dim)
                names[dim] = name
        atoms = frozenset(dim.atom for dim in names if not isinstance(dim, int))
        debaker = Debaker(model, before, after, frozenset(a for a in atoms if a is not None))
        visit_scope(after, scope, debaker.check, prepare=debaker.prepare)
        if debaker.refusals:
            raise Refused(str(self), debaker.refusals)
        debaker.clean_up()
        update_shapes(model, after, names)
        return True

    def _rename(self, model: ir.Model) -> tuple[list[tuple[Axis, str]], bool]:
        """Rename dynamic axes; return the fixed ones with their new names."""
        fixed: list[tuple[Axis, str]] = []
        traced: dict[str, int] = {}
        changed = False
        for place, name in self.dims:
            axis = find_axis(model, place)
            if axis is None:
                places = listed(f"{axis.value.name}:{axis.index}" for axis in axes_of(model))
                raise OptionError(place, "no such axis", remedy=f"places are {places}")
            size = axis.size
            if isinstance(size, int):
                if traced.setdefault(name, size) != size:
                    problem = f"'{name}' cannot be both {traced[name]} and {size}"
                    raise OptionError(place, problem)
                fixed.append((axis, name))
            elif size.value != name:
                changed = True
                if size.value is None:
                    axis.set(name)
                else:
                    substitute(model, {size.value: name})
            else:
                _LOG.warning("name-dims: %s is dynamic and is named %s already", place, name)
        return fixed, changed
