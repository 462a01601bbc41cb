"""Shapes of the values in functions, as far as they follow from all calls."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from functools import cache, partial

import onnx_ir as ir

from vlmpass.ir_tools.errors import CheckError
from vlmpass.ir_tools.graph.walk import Scope
from vlmpass.ir_tools.shapes import Dim, Facts, kept_facts, visit_scope
from vlmpass.ir_tools.shapes.declared import Sizes, declared_sizes, merged, refuted
from vlmpass.ir_tools.shapes.functions import Calls, Dims, at_all_calls, common_axes, values_of
from vlmpass.ir_tools.shapes.inferred import Size, size_of

__all__ = ["infer_functions", "last_axes"]


def infer_functions(model: ir.Model, *, stale: bool) -> bool:
    """Declare in functions the shapes that their values have at every call; say if any changed.

    Named sizes are those of the model's inputs, as in the main graph. A declared number stays where
    calls leave a size open; a declared name does not, as it would pass for one of the model's. A
    function that is never called is left alone.

    Args:
        model: With element types inferred.
        stale: Whether declared sizes are known to be of other inputs, so that none stays.
    """
    if not model.functions:
        return False
    changed = False
    for calls in _all_calls(model):
        changed |= _declare(calls, stale)
    return changed


def last_axes(model: ir.Model) -> dict[ir.Value, Dims]:
    """Return the last axes of values in functions, where the calls agree on them but not on a rank.

    Args:
        model: With types and shapes inferred. Where it is not valid, nothing is known.
    """
    inside = (value for function in model.functions.values() for value in values_of(function))
    if not any(value.shape is None for value in inside):
        return {}
    found: dict[ir.Value, Dims] = {}
    with suppress(CheckError):
        for calls in _all_calls(model):
            for value, shapes in calls.shapes.items():
                common = common_axes(shapes)
                if common and _agreed(list(shapes)) is None:
                    found[value] = common
    return found


def _all_calls(model: ir.Model) -> Iterable[Calls]:
    facts = kept_facts(model, by_names=True)
    visit_scope(facts, Scope(model.graph, model.graph, 0), lambda node, scope: None)
    return at_all_calls(model, facts, cache(partial(_known, facts))).values()


def _declare(calls: Calls, stale: bool) -> bool:
    known = {
        value: _agreed(list(shapes))
        for value, shapes in calls.shapes.items()
        if value.type is not None
    }
    declared = {value: _numbers(value) for value in known}
    sizes = {value: None if dims is None else [*map(Size, dims)] for value, dims in known.items()}
    keep = calls.alike and not stale
    keep = keep and not any(refuted(declared[value], each) for value, each in sizes.items())
    changed = False
    for value, dims in known.items():
        kept = merged(declared[value], sizes[value], stale=stale, keep_names=False)
        new = kept if keep else dims
        if new != declared_sizes(value):
            value.shape = None if new is None else ir.Shape(new)
            changed = True
    return changed


def _numbers(value: ir.Value) -> Sizes | None:
    """Return the declared sizes without names, which would pass for some of the model's."""
    declared = declared_sizes(value)
    return declared and tuple(dim if isinstance(dim, int) else None for dim in declared)


def _agreed(shapes: list[Dims | None]) -> Dims | None:
    """Return a value's shape at every call, sizes that differ being None; None where ranks do."""
    common = common_axes(shapes)
    alike = all(shape is not None and len(shape) == len(common) for shape in shapes)
    return common if alike else None


def _known(facts: Facts, dim: Dim) -> int | str | None:
    return size_of(facts, dim).known
