"""A fused operator said in primitive ones."""

from vlmpass.rewriter_rules.unfuse.contrib import CONTRIB
from vlmpass.rewriter_rules.unfuse.standard import STANDARD

__all__ = ["CONTRIB", "STANDARD", "UNFUSE"]

UNFUSE = CONTRIB + STANDARD
