"""What each operator was and became from opset to opset, as a total table of small functions.

To add a step, write in `steps/`, in the file of the operator's family

    @adapter("ReduceMean", 13, 18)
    def axes_to_input(op, node):
        '''ReduceMean(x, axes=a) -> ReduceMean(x, a).'''

with the since-versions it leads from and to, in either direction, and `@expansion("Gelu", 20)` for
an operator's first version, below which it has to be spelled by older operators. The function
builds on the tape `op` and returns the outputs, or `UNCHANGED` if the node stands as it is, or
raises `CannotConvert(reason, remedy)`; it never touches the graph. What it builds has to be valid
at one opset only (upwards the step's own, downwards the one just below it): the engine leads every
new node on to the target, so `op.Gelu` in an expansion of something newer is fine. A step that
changes nothing but types goes into `steps/same.py`; what `expand.py` lists is spelled by ONNX's own
body.
"""

from __future__ import annotations

from vlmpass.rewriter_rules.opset import expand, steps
from vlmpass.rewriter_rules.opset.conversion import route
from vlmpass.rewriter_rules.opset.element_types.widen import Change
from vlmpass.rewriter_rules.opset.history import StepSummary, Version, tell
from vlmpass.rewriter_rules.opset.plan import ConversionPlan, Replacement
from vlmpass.rewriter_rules.opset.planner import Planner
from vlmpass.rewriter_rules.opset.stamp import (
    fit_inputs,
    needed_ir_version,
    raise_ir_version,
    stamp,
)
from vlmpass.rewriter_rules.opset.table import Entry, Step, entries, entry, is_same

_ENTERED = (expand, steps)
"""Imported for what they enter into the table."""

__all__ = [
    "Change",
    "ConversionPlan",
    "Entry",
    "Planner",
    "Replacement",
    "Step",
    "StepSummary",
    "Version",
    "entries",
    "entry",
    "fit_inputs",
    "is_same",
    "needed_ir_version",
    "raise_ir_version",
    "route",
    "stamp",
    "tell",
]
