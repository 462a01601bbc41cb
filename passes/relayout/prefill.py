"""The pass prefill: a decoder's first call, of tokens before which there are none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

import onnx_ir as ir

from vlmpass.ir_tools.errors import Refusal, Refused
from vlmpass.ir_tools.graph.limit import may_apply
from vlmpass.ir_tools.graph.names import Names
from vlmpass.ir_tools.graph.tape import Tape
from vlmpass.passes.pipeline.base import Pass
from vlmpass.passes.pipeline.needs import Need
from vlmpass.passes.relayout.cached import Cached, caches, register

__all__ = ["Prefill"]

SIZED = 10
"""The first opset with ConstantOfShape, and with Slice of computed bounds for the comparison."""
_Size: TypeAlias = "int | tuple[ir.Value, int]"
"""A size, or the input and the axis that tell it."""


@dataclass(frozen=True)
class Prefill(Pass):
    """Take the inputs for what was before away, for a call before which there was nothing.

    Each cache that grows counts as one without tokens; what comes out is of this call alone. With
    `set-dims{seq=1}` of the same file for all later calls, that is a pair that shares its weights.
    """

    name: ClassVar[str] = "prefill"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.SHAPES})
    edits_shapes: ClassVar[bool] = True
    nothing: ClassVar[str] = "the model has no cache that grows"

    def mending(self) -> Pass:
        """Return what gives the source caches without tokens, made in another way."""
        return _OfNothing()

    def run(self, model: ir.Model) -> bool:
        """Let every cache of the main graph be empty, or none."""
        graph = model.graph
        found = [each for each in caches(graph) if not isinstance(each.size, int)]
        if not found or not may_apply(self.name, found[0].past.name or ""):
            return False
        others = [each for each in graph.inputs if each not in {one.past for one in found}]
        sizes = [_sizes(each, others) for each in found]
        refusals = [each for each in sizes if isinstance(each, Refusal)]
        refusals += [_given_out(each) for each in found if each.past.is_graph_output()]
        if (opset := graph.opset_imports.get("", 1)) < SIZED:
            what = f"what makes caches of a size that is computed is there from opset {SIZED} on"
            refusals.append(
                Refusal(f"opset {opset}", what, f"put convert-opset{{to={SIZED}}} before")
            )
        if refusals:
            raise Refused(str(self), refusals)
        names = Names.of(model)
        for cache, shape in zip(found, sizes, strict=True):
            assert not isinstance(shape, Refusal)
            self._empty(model, cache, shape, names)
        return True

    def _empty(self, model: ir.Model, cache: Cached, sizes: Sequence[_Size], names: Names) -> None:
        """Let a cache be one without tokens."""
        graph, past = model.graph, cache.past
        tape = Tape(names, graph.opset_imports, f"{past.name}/empty")
        wanted = [0 if axis == cache.axis else size for axis, size in enumerate(sizes)]
        made = self._made(tape, wanted, cache.axis, past.dtype or ir.DataType.FLOAT)
        assert past.shape is not None
        made.shape = ir.Shape(
            [0 if axis == cache.axis else size for axis, size in enumerate(past.shape)]
        )
        past.replace_all_uses_with(made)
        graph.insert_before(graph[0], tape.nodes)
        register(graph, tape)
        graph.inputs.remove(past)

    def _made(self, tape: Tape, sizes: Sequence[_Size], axis: int, dtype: ir.DataType) -> ir.Value:
        del axis
        late = dtype == ir.DataType.BFLOAT16  # it is there from opset 20 on
        kind = ir.DataType.FLOAT if late else dtype
        made = tape.ConstantOfShape(_vector(tape, sizes), value=ir.tensor([0.0], dtype=kind))
        return tape.Cast(made, to=dtype) if late else made


@dataclass(frozen=True)
class _OfNothing(Prefill):
    """Let caches be what is cut off one of a token, so that a fault of either way shows."""

    def _made(self, tape: Tape, sizes: Sequence[_Size], axis: int, dtype: ir.DataType) -> ir.Value:
        one = [1 if at == axis else size for at, size in enumerate(sizes)]
        wide = tape.Expand(tape.const(1.0, dtype), _vector(tape, one))
        return tape.Slice(wide, tape.const([1]), tape.const([9]), tape.const([axis]))


def _vector(tape: Tape, sizes: Sequence[_Size]) -> ir.Value:
    parts = [
        tape.const([size])
        if isinstance(size, int)
        else tape.Gather(tape.Shape(size[0]), tape.const([size[1]]))
        for size in sizes
    ]
    return tape.Concat(*parts, axis=0)


def _sizes(cache: Cached, others: Sequence[ir.Value]) -> Sequence[_Size] | Refusal:
    """Return what says how large each axis of a cache is but that of tokens, which is 0."""
    sizes: list[_Size] = []
    for axis, size in enumerate(cache.past.shape or ()):
        told = 0 if axis == cache.axis else size if isinstance(size, int) else _told(size, others)
        if told is None:
            reason = f"no other input has an axis of the size of its axis {axis}, {size}"
            return Refusal(cache.past.name or "", reason, "name sizes with name-dims")
        sizes.append(told)
    if sizes:
        return sizes
    return Refusal(cache.past.name or "", "its shape is not known")


def _told(size: ir.SymbolicDim, others: Sequence[ir.Value]) -> tuple[ir.Value, int] | None:
    """Return an input and an axis of it that has this size."""
    for value in others:
        for axis, other in enumerate(value.shape or ()):
            if size.value is not None and other == size:
                return value, axis
    return None


def _given_out(cache: Cached) -> Refusal:
    return Refusal(cache.past.name or "", "it is an output too, which would be empty")
