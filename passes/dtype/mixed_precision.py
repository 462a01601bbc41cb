"""The pass that brings a model to half precision and leaves islands of float32 where they matter.

The result is strongly typed: every Cast that is needed stands in the graph, and no runtime has to
guess.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import onnx_ir as ir

from vlmpass.ir_tools.errors import Refusal, Refused
from vlmpass.ir_tools.graph.constants import constant_of
from vlmpass.ir_tools.graph.walk import all_nodes
from vlmpass.ir_tools.operators.dtypes import end_of
from vlmpass.ir_tools.types import solve
from vlmpass.ir_tools.types.narrow import Narrowing, bounds_only
from vlmpass.ir_tools.types.retype import retype
from vlmpass.passes.dtype.angles import angles
from vlmpass.passes.dtype.islands import SENSITIVE, divisors, grow, seeds
from vlmpass.passes.dtype.masks import masks_of_islands
from vlmpass.passes.dtype.measured import measured
from vlmpass.passes.dtype.settled import settle, settled
from vlmpass.passes.pipeline.base import OptionError, Pass
from vlmpass.passes.pipeline.values import tell_kept_io

__all__ = ["MixedPrecision"]

_LOG = logging.getLogger(__name__)
_FLOAT = ir.DataType.FLOAT
_HALVES = {"float16": ir.DataType.FLOAT16, "bfloat16": ir.DataType.BFLOAT16}


@dataclass(frozen=True)
class MixedPrecision(Pass):
    """Bring a model to half precision, with islands of float32 where half is too narrow."""

    name: ClassVar[str] = "mixed-precision"

    to: Literal["float16", "bfloat16"] = "float16"
    """The half precision."""

    keep_io: bool = False
    """Whether the graph's inputs and outputs keep their types, with Casts at the border."""

    keep_ops: tuple[str, ...] = ()
    """Operators that stay in float32 besides those known to need it."""

    narrow_ops: tuple[str, ...] = ()
    """Operators known to need float32 that go to half precision all the same."""

    keep_nodes: tuple[str, ...] = ()
    """Regular expressions; nodes whose name one of them finds stay in float32."""

    calibrate: str = "none"
    """What to measure ranges with: `none`, `random` inputs, an .npz file of inputs, a folder of
    such, or `auto`.

    The model runs in segments of bounded weights, so that it may be larger than memory. Subgraphs
    are not measured and stay in float32; a function is measured in every call. With `auto`, random
    inputs are measured for two minutes, those with long sequences, masked rows and large
    activations among them, if ONNX Runtime is here and runs the model; what is not measured is
    narrow.
    """

    limit: float = 0.5
    """Share of half precision's range above which a measured value stays wide."""

    def __post_init__(self) -> None:
        """Check the expressions and the limit."""
        super().__post_init__()
        for expression in self.keep_nodes:
            try:
                re.compile(expression)
            except re.error as error:
                raise OptionError("keep-nodes", f"'{expression}': {error}") from None
        if not 0 < self.limit <= 1:
            raise OptionError("limit", f"{self.limit} is not a share", remedy="give 0 < limit <= 1")

    @property
    def half(self) -> ir.DataType | None:
        """The half precision."""
        return _HALVES[self.to]

    def run(self, model: ir.Model) -> bool:
        """Convert in place."""
        half, request = _HALVES[self.to], f"{self.name} to {self.to}"
        left = settled(model, solve(model), half, keep_io=self.keep_io)
        wide = {ir.DataType.DOUBLE, *_HALVES.values()}
        wide -= set() if self._narrow_seeds(model) else {half}
        widening = dict.fromkeys(sorted(wide, key=int), _FLOAT)
        if self.keep_io:
            tell_kept_io(model, request, {*widening, _FLOAT})
        self._tell_unmatched(model, request)
        changed = retype(model, widening, request=request, keep_io=self.keep_io)
        kept = self._chosen(model)
        kept |= left
        kept |= angles(model, solve(model), kept)
        reaching, large = self._measured(model, half, request)
        kept |= reaching
        kept = grow(model, solve(model), kept)
        kept |= masks_of_islands(model, kept, half)
        unfit = dict(_unfit(model, kept, half))
        kept |= unfit
        kept |= {node: why for node, why in divisors(unfit).items() if node not in kept}
        changed |= retype(
            model, {_FLOAT: half}, request=request, kept=kept, keep_io=self.keep_io, wide=large
        )
        changed |= _wide_softmax(model)
        settle(model, solve(model), half, kept)
        if not changed:
            why = next(iter(kept.values()), "")
            told = f"what is float32 stays so: {why}" if why else "nothing to convert"
            _LOG.warning("%s: %s", request, told)
        return changed

    def _tell_unmatched(self, model: ir.Model, request: str) -> None:
        """Say which names and expressions are those of no node."""
        nodes = list(all_nodes(model))
        there = {(node.domain, node.op_type) for node in nodes}
        operators = {op_type for _, op_type in there}
        for name in self.keep_ops:
            domain, _, op_type = name.rpartition("::")
            if (domain, op_type) not in there:
                _LOG.warning("%s: keep-ops: the model has no %s", request, name)
        for name in self.narrow_ops:
            if name not in operators:
                _LOG.warning("%s: narrow-ops: the model has no %s", request, name)
        for expression in self.keep_nodes:
            if not any(node.name and re.search(expression, node.name) for node in nodes):
                _LOG.warning("%s: keep-nodes: no node is named like '%s'", request, expression)

    def _sensitive(self) -> dict[tuple[str, str], str]:
        found = {key: why for key, why in SENSITIVE.items() if key[1] not in self.narrow_ops}
        for name in self.keep_ops:
            domain, _, op_type = name.rpartition("::")
            found[domain, op_type] = "the pipeline says so"
        return found

    def _narrow_seeds(self, model: ir.Model) -> bool:
        """Whether a node that is to be wide computes in half precision now."""
        typing = solve(model)
        halves = set(_HALVES.values())
        return any(
            typing.dtype(value) in halves for node in self._chosen(model) for value in node.outputs
        )

    def _chosen(self, model: ir.Model) -> dict[ir.Node, str]:
        kept = seeds(model, solve(model), self._sensitive(), _HALVES[self.to])
        for node in all_nodes(model):
            for expression in self.keep_nodes:
                if node.name and re.search(expression, node.name):
                    kept.setdefault(node, f"the pipeline keeps nodes like '{expression}'")
        return kept

    def _measured(
        self, model: ir.Model, half: ir.DataType, request: str
    ) -> tuple[dict[ir.Node, str], frozenset[ir.Value]]:
        """Keep what makes or takes values that come near the end of the range; return these too."""
        if self.calibrate == "none":
            return {}, frozenset()
        found = measured(model, self.calibrate, math.inf if self.keep_io else end_of(half))
        end = self.limit * end_of(half)
        large = {value: top for value, top in found.tops.items() if top > end}
        kept: dict[ir.Node, str] = {}
        if self.calibrate != "auto":
            unseen = (node for node in all_nodes(model) if node not in found.seen)
            kept = dict.fromkeys(unseen, "its values are not measured inside a subgraph")
            if not large:
                _LOG.warning(
                    "%s: nothing that was measured comes near the end of its range", request
                )
        for node in all_nodes(model):
            for value in (*node.outputs, *node.inputs):
                if value is not None and value in large:
                    reason = f"'{value.name}' reaches {large[value]:.5g} when measured"
                    kept.setdefault(node, reason)
        # Of the user's own inputs an output is to keep its distance; it may use all of the range.
        most = end_of(half) if self.calibrate == "auto" else end
        refusals = [
            Refusal(f"output '{value.name}'", f"reaches {large[value]:.5g}", "use keep-io")
            for value in ([] if self.keep_io else model.graph.outputs)
            if large.get(value, 0.0) > most
        ]
        if refusals:
            raise Refused(request, refusals)
        return kept, frozenset(large)


def _unfit(
    model: ir.Model, kept: dict[ir.Node, str], half: ir.DataType
) -> Iterator[tuple[ir.Node, str]]:
    """Yield nodes with a constant that half precision cannot hold, with the reason."""
    for node in (each for each in all_nodes(model) if each not in kept):
        for attribute in node.attributes.values() if node.op_type != "Constant" else ():
            if attribute.type == ir.AttributeType.TENSOR and not attribute.is_ref():
                problem = _problem(attribute.as_tensor(), half, f"attribute {attribute.name}")
                if problem:
                    yield node, problem
        for value in filter(None, node.inputs):
            problem = _problem(
                constant_of(value), half, f"constant {value.name}", bound=bounds_only(value)
            )
            if problem:
                yield node, problem


def _problem(
    held: ir.TensorProtocol | None, half: ir.DataType, where: str, *, bound: bool = False
) -> str:
    """Say why a tensor cannot be narrow; empty if it can."""
    if held is None or held.dtype != _FLOAT:
        return ""
    trial = Narrowing()
    trial.cast(held, half, where, bound=bound)
    return f"{where} {trial.refusals[0].reason}" if trial.refusals else ""


def _wide_softmax(model: ir.Model) -> bool:
    """Let Attention compute its softmax in float32."""
    changed = False
    for node in all_nodes(model):
        if (node.domain, node.op_type) == ("", "Attention"):
            found = node.attributes.get("softmax_precision")
            if found is None or (not found.is_ref() and found.as_int() != _FLOAT):
                node.attributes["softmax_precision"] = ir.AttrInt64(
                    "softmax_precision", _FLOAT.value
                )
                changed = True
    return changed
