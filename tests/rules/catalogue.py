"""All rules under test, with the hints for their random graphs."""

from __future__ import annotations

from rules.hints import HINTS as SIMPLIFY_HINTS
from rules.hints_fuse import FUSE_HINTS
from vlmpass.rewriter_rules.fuse import FUSE
from vlmpass.rewriter_rules.simplify import SIMPLIFY
from vlmpass.rewriter_rules.unfuse import UNFUSE

RULES = [*SIMPLIFY, *FUSE, *UNFUSE]
HINTS = {**SIMPLIFY_HINTS, **FUSE_HINTS}
