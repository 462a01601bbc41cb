"""All rules under test, with the hints for their random graphs and the cases written out."""

from __future__ import annotations

from rules import (
    cases_restore,
    fires_fuse,
    fires_products,
    fires_simplify,
    refuses_fuse,
    refuses_products,
    refuses_simplify,
)
from rules.hints import HINTS as SIMPLIFY_HINTS
from rules.hints_fuse import FUSE_HINTS
from rules.hints_restore import RESTORE_HINTS, ROUNDING
from vlmpass.rewriter_rules.fuse import FUSE
from vlmpass.rewriter_rules.restore import RESTORE
from vlmpass.rewriter_rules.simplify import SIMPLIFY
from vlmpass.rewriter_rules.unfuse import UNFUSE

__all__ = ["FIRES", "HINTS", "REFUSES", "ROUNDING", "RULES"]

RULES = [*SIMPLIFY, *FUSE, *UNFUSE, *RESTORE]
HINTS = {**SIMPLIFY_HINTS, **FUSE_HINTS, **RESTORE_HINTS}
FIRES = {
    **fires_simplify.FIRES,
    **fires_products.FIRES,
    **fires_fuse.FIRES,
    **cases_restore.FIRES,
}
REFUSES = {
    **refuses_simplify.REFUSES,
    **refuses_products.REFUSES,
    **refuses_fuse.REFUSES,
    **cases_restore.REFUSES,
}
