"""What each operator was and became from opset to opset, as a total table of small functions.

To add a step, write in the file of the operator's family

    @adapter("ReduceMean", 13, 18)
    def axes_to_input(op, node):
        '''ReduceMean(x, axes=a) -> ReduceMean(x, a).'''

with the since-versions it leads from and to, in either direction, and `@expansion("Gelu", 20)` for
an operator's first version, below which it has to be spelled by older operators. The function
builds on the tape `op` and returns the outputs, or `UNCHANGED` if the node stands as it is, or
calls `refuse(reason, remedy)`; it never touches the graph. What it builds has to be valid at one
opset only (upwards the step's own, downwards the one just below it): the engine leads every new
node on to the target, so `op.Gelu` in an expansion of something newer is fine. A step that changes
nothing but types goes into `same.py`; what `expand.py` lists is spelled by ONNX's function body.
"""

from __future__ import annotations

from vlmpass.rewriter_rules.opset import (
    attention,
    bits,
    bounds,
    broadcast,
    casts,
    einsum,
    elementwise,
    expand,
    grid,
    layout,
    legacy,
    norm,
    pool,
    quantize,
    reduce,
    resize,
    roi,
    same,
    scatter,
    series,
    signal,
    softmax,
    split_pad,
)
from vlmpass.rewriter_rules.opset.convert import route
from vlmpass.rewriter_rules.opset.dry import Dry, Edit, drop_unused
from vlmpass.rewriter_rules.opset.stamp import fit_inputs, needed_ir_version, stamp
from vlmpass.rewriter_rules.opset.story import Telling, Version, tell
from vlmpass.rewriter_rules.opset.table import Entry, Step, entries, entry, is_same
from vlmpass.rewriter_rules.opset.widen import Change

_FAMILIES = (
    attention, bits, bounds, broadcast, casts, einsum, elementwise, expand, grid, layout, legacy,
    norm, pool, quantize, reduce, resize, roi, same, scatter, series, signal, softmax, split_pad,
)  # fmt: skip
"""Imported for what they enter into the table."""

__all__ = [
    "Change",
    "Dry",
    "Edit",
    "Entry",
    "Step",
    "Telling",
    "Version",
    "drop_unused",
    "entries",
    "entry",
    "fit_inputs",
    "is_same",
    "needed_ir_version",
    "route",
    "stamp",
    "tell",
]
