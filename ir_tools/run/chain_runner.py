"""Runs a model of many nodes as pieces that are open together in one process.

ONNX Runtime opens and runs a graph in more time than its nodes grow by: 80 000 nodes take ten times
what 20 000 do. In pieces the time grows as the nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import onnx_ir as ir

from vlmpass.ir_tools.run.addition import Addition
from vlmpass.ir_tools.run.allowance import Allowance
from vlmpass.ir_tools.run.materialize import Staged, stage
from vlmpass.ir_tools.run.runner import Runner, opening
from vlmpass.ir_tools.run.segments import Segment, extract, segments
from vlmpass.ir_tools.system.collector import collect_new
from vlmpass.ir_tools.types.typing import Typing, solve
from vlmpass.ir_tools.worker.transport import Array, Feed

__all__ = ["ChainRunner"]

_COLLECTED = 8
"""Pieces between two collections of garbage."""


class ChainRunner(Runner):
    """Runs a model on ONNX Runtime's CPU, on one thread; for the rest it is like `Runner`.

    Args:
        model: Its external weights are `StoredWeight` or lazy.
        prepare: Returns what the graph of a piece computes besides.
        allowance: What loading and running it may take.

    Raises:
        VerifyError: The graph is not in topological order.
        RunError: If the runtime refuses a piece or dies on it.
    """

    def __init__(
        self, model: ir.Model, prepare: Callable[[ir.Model], Addition], allowance: Allowance
    ) -> None:
        self._model = model
        self._prepare = prepare
        super().__init__(model, allowance=allowance)

    def _opening(self, *_: object) -> dict[str, object]:
        typing = solve(self._model)
        gives = [str(value.name) for value in self._model.graph.outputs]
        pieces: list[dict[str, object]] = []
        total = 0
        for index, segment in enumerate(segments(self._model, typing=typing)):
            staged, more = self._staged(segment, typing, index)
            total += staged.nbytes
            gives += more.outputs
            takes = [str(value.name) for value in segment.inputs]
            pieces.append({**opening(staged, "onnxruntime", "basic", threads=1), "takes": takes})
            if index % _COLLECTED == 0:
                collect_new()  # the copies of nodes, which refer to each other
        memory = self._allowance.memory
        bound = None if memory is None else memory + total
        return {"do": "chain", "pieces": pieces, "gives": gives, "memory": bound}

    def _staged(self, segment: Segment, typing: Typing, index: int) -> tuple[Staged, Addition]:
        piece = extract(self._model, segment, typing)
        folder = self._folder.path / str(index)
        folder.mkdir()
        more = self._prepare(piece)
        return stage(piece, folder, more=more), more

    def run(self, inputs: Mapping[str, Array | Sequence[Array] | None]) -> Feed:
        """Return the outputs by name, as `Runner.run` does."""
        weights = {
            str(value.name): value.const_value.numpy()
            for value in self._model.graph.outputs
            if value.const_value is not None and value.is_initializer()
        }
        return {**weights, **super().run(inputs)}
