"""The pass that lets int32 take the place of int64 where it is proven to hold every number."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from vlmpass.ir_tools.errors import Refusal, Refused
from vlmpass.ir_tools.graph.describe import name_node
from vlmpass.passes.dtype.narrowing_plan import NarrowingPlan
from vlmpass.passes.pipeline.base import OptionError, Pass
from vlmpass.passes.pipeline.needs import Need

__all__ = ["NarrowIntegers"]


@dataclass(frozen=True)
class NarrowIntegers(Pass):
    """Let int32 take the place of int64 wherever it is proven to hold every number.

    What computes with int64 and is not proven is refused, with the value that has no range. Sizes
    that shapes are made of stay what they are. No tensor has an axis of 2147483647 elements.
    """

    name: ClassVar[str] = "narrow-integers"
    needs: ClassVar[frozenset[Need]] = frozenset({Need.SHAPES})
    nothing: ClassVar[str] = "nothing computes with int64"

    keep_io: bool = True
    """Whether the graph's inputs and outputs keep their types, with Casts at the border."""

    partly: bool = False
    """Whether what is not proven stays int64, instead of being refused."""

    most: tuple[tuple[str, int], ...] = ()
    """The most elements that an axis of an input with a name has, or the largest number, of either
    sign, that is fed as an input of a name: as the caller knows."""

    def __post_init__(self) -> None:
        """Check that bounds can be any."""
        super().__post_init__()
        for name, number in self.most:
            if number < 0:
                raise OptionError(name, f"no axis and no number is bounded by {number}")

    def run(self, model: ir.Model) -> bool:
        """Rewrite in place; nothing is edited if something is refused."""
        self._check_names(model)
        plan = NarrowingPlan(model, dict(self.most), keep_io=self.keep_io)
        if not self.partly:
            refusals = list(refused(plan))
            if refusals:
                raise Refused(str(self), refusals)
        return plan.apply()

    def _check_names(self, model: ir.Model) -> None:
        known = {value.name for value in model.graph.inputs}
        for value in model.graph.inputs:
            sizes = value.shape or ()
            known |= {size.value for size in sizes if isinstance(size, ir.SymbolicDim)}
        for name, _ in self.most:
            if name not in known:
                raise Refused(str(self), [Refusal(name, "neither an input nor an axis of one")])


def refused(plan: NarrowingPlan) -> Iterator[Refusal]:
    """Yield why nodes that compute with int64 stay."""
    for node, reason in plan.unproven.items():
        remedy = "say the most that an input or its axis has, as narrow-integers{NAME=1000}"
        yield Refusal(name_node(node), reason, remedy)
