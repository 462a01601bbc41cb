"""How to run a model on this machine: as it is, computed in float32, or by the evaluator."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import onnx_ir as ir

from vlmpass.ir_tools.clone import clone
from vlmpass.ir_tools.errors import VerifyError
from vlmpass.ir_tools.run.runner import Optimization, RunError, Runner
from vlmpass.ir_tools.run.widen import widen
from vlmpass.ir_tools.types import solve
from vlmpass.ir_tools.walk import all_nodes

__all__ = ["Side", "computed_in"]

# Operators that only move, store or convert numbers: their types say nothing about arithmetic.
_MOVES = frozenset({
    "Cast", "CastLike", "Concat", "Constant", "Expand", "Flatten", "Gather", "Identity", "If",
    "Loop", "Reshape", "Shape", "Slice", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze",
})  # fmt: skip
_FLOATS = frozenset(dtype for dtype in ir.DataType if dtype.is_floating_point())


def computed_in(model: ir.Model) -> frozenset[ir.DataType]:
    """Return the floating-point types that a model's operators compute in; no weight is read."""
    typing = solve(model)
    found: set[ir.DataType] = set()
    for node in all_nodes(model):
        if node.op_type in _MOVES or node.op_identifier() in model.functions:
            continue
        for value in (*node.inputs, *node.outputs):
            dtype = typing.dtype(value) if value is not None else None
            if dtype in _FLOATS:
                found.add(dtype)
    return frozenset(found)


@dataclass
class Side:
    """One of the two models of a comparison.

    Attributes:
        model: Its graph; weights stay where they lie.
        path: Its file, which the runtime is given if nothing must be changed first; None for a
            model in memory.
        widened: The types that are computed in float32 instead.
        how: How it came to be run; empty before `open`.
        refused: Why ONNX Runtime did not load it as it is; None if it was not tried or loaded.
    """

    model: ir.Model
    path: str | os.PathLike[str] | None = None
    widened: frozenset[ir.DataType] = frozenset()
    how: str = ""
    refused: RunError | None = field(default=None, repr=False)

    def open(self, optimization: Optimization) -> Runner:
        """Return a runner: ONNX Runtime's if it loads the model, else the reference evaluator's.

        Raises:
            VerifyError: If neither loads it, with both reasons.
        """
        reasons: list[str] = []
        for how, start in self._ways(optimization):
            try:
                runner = start()
            except RunError as error:
                reasons.append(str(error))
                if self.refused is None and error.backend == "onnxruntime":
                    self.refused = error
                continue
            self.how = how
            if self.path is not None and how == "ONNX Runtime":
                self.refused = None
            return runner
        raise VerifyError("nothing here runs the model: " + "; ".join(dict.fromkeys(reasons)))

    def _ways(self, optimization: Optimization) -> Iterator[tuple[str, Callable[[], Runner]]]:
        if self.widened:
            names = " and ".join(sorted(dtype.name.lower() for dtype in self.widened))
            twin = clone(self.model)
            widen(twin, self.widened)
            yield (
                f"ONNX Runtime, {names} computed in float32",
                lambda: Runner(twin, optimization=optimization),
            )
        else:
            path = self.path
            if path is not None:
                yield "ONNX Runtime", lambda: Runner(path, optimization=optimization)
            # Staged, a model also runs whose data files are links, as in the Hugging Face cache.
            yield "ONNX Runtime", lambda: Runner(self.model, optimization=optimization)
        yield "the reference evaluator", lambda: Runner(self.model, backend="reference")
