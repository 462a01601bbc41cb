"""The pass set-dims: axes get a fixed size, and what follows from it becomes constant."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import ClassVar

import onnx_ir as ir

from vlmpass.ir_tools.errors import Refusal, Refused
from vlmpass.ir_tools.graph.describe import name_node
from vlmpass.ir_tools.graph.walk import Scope
from vlmpass.ir_tools.shapes import Facts, facts_of, visit_scope
from vlmpass.ir_tools.system.collector import without_collector
from vlmpass.ir_tools.system.listed import listed
from vlmpass.passes.dims.agreement import needs
from vlmpass.passes.dims.declare import axes_of, find_axis, substitute, update_shapes
from vlmpass.passes.folding.fold import Fold
from vlmpass.passes.pipeline.base import OptionError, Pass
from vlmpass.passes.shape_arithmetic.shape_arithmetic import ShapeArithmetic

__all__ = ["SetDims"]

_LOG = logging.getLogger(__name__)
_DONE = "vlmpass.set-dims"
_ALREADY = "set-dims: %s has the size %d already"


@dataclass(frozen=True)
class SetDims(Pass):
    """Fix axes by name or as input:axis, and fold the shapes computed from them.

    A model that cannot run at the sizes asked for, because others are baked into it, is refused
    with the nodes that stand in the way. What was set is noted in the model's metadata.
    """

    name = "set-dims"
    edits_shapes: ClassVar[bool] = True

    dims: tuple[tuple[str, int], ...] = ()
    """Sizes by name of the axis, or by place such as pixel_values:2."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, size in self.dims:
            if size < 0:
                raise OptionError(name, f"an axis cannot have {size} elements")

    @without_collector
    def run(self, model: ir.Model) -> bool:
        """Set, propagate, and fold."""
        changed = self._set(model)
        facts = facts_of(model)
        refusals: list[Refusal] = []

        def check(node: ir.Node, scope: Scope) -> None:
            reason = _contradiction(node, facts)
            if reason is not None:
                remedy = "export the model with dynamic axes, or ask for the size it has"
                refusals.append(Refusal(name_node(node), reason, remedy))

        visit_scope(facts, Scope(model.graph, model.graph, 0), check)
        if refusals and changed:
            raise Refused(str(self), refusals)
        if not changed:
            return False
        update_shapes(model, facts, {})
        while Fold().run(model) | ShapeArithmetic().run(model):
            pass
        return True

    def _set(self, model: ir.Model) -> bool:
        done = dict(
            item.rsplit("=", 1) for item in model.metadata_props.get(_DONE, "").split("\n") if item
        )
        named: dict[str, int] = {}
        changed = False
        for name, size in self.dims:
            axis = find_axis(model, name)
            if axis is None:
                if done.get(name) != str(size):
                    _check_name(model, name)
                    named[name] = size
                else:
                    _LOG.warning(_ALREADY, name, size)
            elif axis.size == size:
                _LOG.warning(_ALREADY, name, size)
            else:
                if isinstance(axis.size, int):
                    raise OptionError(name, f"this axis has the fixed size {axis.size}")
                axis.set(size)
                changed = True
            done[name] = str(size)
        changed |= substitute(model, named)
        if changed:
            model.metadata_props[_DONE] = "\n".join(f"{k}={v}" for k, v in done.items())
        return changed


def _check_name(model: ir.Model, name: str) -> None:
    """Raise unless an axis of an input has this name."""
    sizes = [axis.size for axis in axes_of(model)]
    free: Mapping[str, None] = dict.fromkeys(
        symbol
        for size in sizes
        if isinstance(size, ir.SymbolicDim) and size.value is not None
        for symbol in (size.value, *_symbols(size))
    )
    if name in free:
        return
    close = get_close_matches(name, free, 1)
    problem = "no axis of an input has this name"
    if close:
        problem += f"; did you mean '{close[0]}'?"
    known = listed(free) if free else "none: all are fixed or nameless"
    raise OptionError(name, problem, remedy=f"names are {known}; or give a place as input:axis")


def _symbols(size: ir.SymbolicDim) -> list[str]:
    try:
        return sorted(ir.Shape([size]).free_symbols())
    except ValueError:
        return []  # a name that is no expression, such as "batch size"


def _contradiction(node: ir.Node, facts: Facts) -> str | None:
    """Return why a node cannot run at the proven sizes of its inputs, None if it can."""
    for need in needs(node, facts):
        sizes = {size for size in need.sizes if isinstance(size, int)}
        if need.ones:
            sizes.discard(1)
        if len(sizes) > 1:
            listed = " and ".join(map(str, sorted(sizes)))
            return f"sizes {listed} do not go together"
    return None
