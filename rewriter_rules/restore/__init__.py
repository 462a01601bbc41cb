"""A number that an exporter rounded to a narrow type becomes what it was before, to float32.

An exporter writes sqrt(2) into a bfloat16 model as 1.4140625. What stands around such a number says
what it is a rounding of; in a model that is float32 now, it is that again.
"""

from vlmpass.rewriter_rules.restore.activations import ACTIVATIONS
from vlmpass.rewriter_rules.restore.norms import NORMS
from vlmpass.rewriter_rules.restore.sizes import SIZES

__all__ = ["ACTIVATIONS", "NORMS", "RESTORE", "SIZES"]

RESTORE = ACTIVATIONS + SIZES + NORMS
