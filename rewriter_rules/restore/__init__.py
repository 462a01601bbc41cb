"""A number that an exporter rounded to a narrow type becomes what it was before, to float32.

An exporter writes sqrt(2) into a bfloat16 model as 1.4140625. What stands around such a number says
what it is a rounding of; in a model that is float32 now, it is that again.
"""

import onnx_ir as ir

from vlmpass.ir_tools.graph.effects import NumberChanges
from vlmpass.rewriter_rules.restore.activation_numbers import ACTIVATIONS
from vlmpass.rewriter_rules.restore.epsilons import NORMS
from vlmpass.rewriter_rules.restore.sizes import SIZES
from vlmpass.rewriter_rules.restore.whole import restored

__all__ = ["ACTIVATIONS", "NORMS", "RESTORE", "SIZES", "restore"]

RESTORE = ACTIVATIONS + SIZES + NORMS


def restore(model: ir.Model) -> NumberChanges:
    """Apply the rules to a whole model, as `whole.restored` does; say what was restored."""
    return restored(model, RESTORE)
