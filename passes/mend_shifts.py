"""The pass that lets divisions round down which an exporter wrote for shifts of packed words."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from vlmpass.ir_tools.graph.edit import remove_unused_constant
from vlmpass.ir_tools.graph.names import Names
from vlmpass.ir_tools.graph.tape import Tape, splice
from vlmpass.passes.pipeline.base import Pass
from vlmpass.rewriter_rules.quant.shifts import find_shifts, rounds_down

__all__ = ["MendShifts"]

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class MendShifts(Pass):
    """Unpack negative words as PyTorch does, where the exporter divided instead of shifting.

    The older exporter writes `>>` as a division that truncates, the newer one divides int64 in
    float32; both unpack other weights than the PyTorch model has. This changes what the model
    computes, so that verification compares with the source mended likewise.
    """

    name: ClassVar[str] = "mend-shifts"
    nothing: ClassVar[str] = "the model has no division that stands for a shift of packed words"
    mends_source: ClassVar[bool] = True

    def run(self, model: ir.Model) -> bool:
        """Rewrite every such division of constant words in place."""
        found = list(find_shifts(model))
        names = Names.of(model)
        for shift in found:
            last = shift.nodes[-1]
            tape = Tape(names, shift.scope.opsets, last.name or self.name)
            result = rounds_down(tape, shift)
            made = {value for node in shift.nodes for value in node.outputs}
            inputs = {value for node in shift.nodes for value in node.inputs if value} - made
            splice(
                tape,
                shift.nodes,
                [(last.outputs[0], result)],
                in_function=shift.scope.in_function,
            )
            for value in sorted(inputs, key=lambda value: value.name or ""):
                remove_unused_constant(value)
        if found:
            _LOG.warning(
                "%d divisions that the exporter wrote for shifts round down now, as in PyTorch; "
                "the result is compared with the source mended likewise",
                len(found),
            )
        return bool(found)
