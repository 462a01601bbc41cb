"""Types and shapes of every value, as far as they follow from the inputs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import onnx_ir as ir

from vlmpass.ir_tools.graph.symbols import ProvenDim
from vlmpass.ir_tools.shapes.declared import declared_sizes, merged, refuted
from vlmpass.ir_tools.shapes.inferred import Size, inferred_shapes
from vlmpass.ir_tools.shapes.inferred_functions import infer_functions
from vlmpass.ir_tools.system.collector import without_collector
from vlmpass.ir_tools.types import apply, solve
from vlmpass.passes.pipeline.base import Pass

__all__ = ["Infer"]

_Dim = int | str | None


@dataclass(frozen=True)
class Infer(Pass):
    """Write the types and shapes that follow from the inputs to every value.

    What is declared for a value and does not contradict is kept where nothing better is known; what
    contradicts is replaced. Once a declared size is refuted, the model's shapes are stale (traced,
    then its inputs were edited), and declared sizes that nothing confirms are forgotten as well.
    Types of the model's inputs and outputs stay as declared; names of sizes of the outputs, too.
    In a function, what holds at every call of it is written.
    """

    name = "infer"
    keeps_values: ClassVar[bool] = True

    @without_collector
    def run(self, model: ir.Model) -> bool:
        """Infer types, then shapes."""
        interface = {*model.graph.inputs, *model.graph.outputs}
        declared = {value for value in interface if value.type is not None}
        changed = apply(model, solve(model), keep=declared)
        shapes = inferred_shapes(model)
        stale = any(refuted(declared_sizes(value), sizes) for value, sizes in shapes.items())
        if stale:
            shapes = inferred_shapes(model, trust_unknown=False)
        for value, sizes in shapes.items():
            if value.type is not None:
                changed |= _write(value, sizes, stale=stale, is_output=value in interface)
        return infer_functions(model, stale=stale) or changed


def _write(
    value: ir.Value, sizes: tuple[Size, ...] | None, *, stale: bool, is_output: bool
) -> bool:
    declared = declared_sizes(value)
    dims = merged(declared, sizes, stale=stale, keep_names=is_output)
    if dims is not None and not all(isinstance(dim, int) for dim in dims):
        value.shape = ir.Shape(map(_with_symbol, dims, sizes or [None] * len(dims)))
    elif dims != declared:
        value.shape = None if dims is None else ir.Shape(dims)
    return dims != declared


@lru_cache(maxsize=1 << 10)
def _with_symbol(dim: _Dim, size: Size | None) -> int | ir.SymbolicDim:
    if isinstance(dim, int):
        return dim
    if size is None or size.symbol is None:
        return ir.SymbolicDim(dim)
    return ProvenDim(dim, size.symbol)
