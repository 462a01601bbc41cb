"""Fewer nodes, same values."""

from vlmpass.rewriter_rules.simplify.chains import CHAINS
from vlmpass.rewriter_rules.simplify.fast import FAST
from vlmpass.rewriter_rules.simplify.nothing import NOTHING
from vlmpass.rewriter_rules.simplify.products import PRODUCTS
from vlmpass.rewriter_rules.simplify.sequences import SEQUENCES
from vlmpass.rewriter_rules.simplify.shapes import SHAPES
from vlmpass.rewriter_rules.simplify.weights import WEIGHTS
from vlmpass.rewriter_rules.simplify.windows import WINDOWS

__all__ = [
    "CHAINS",
    "FAST",
    "NOTHING",
    "PRODUCTS",
    "SEQUENCES",
    "SHAPES",
    "SIMPLIFY",
    "WEIGHTS",
    "WINDOWS",
]

SIMPLIFY = NOTHING + CHAINS + SHAPES + SEQUENCES + PRODUCTS + WEIGHTS + WINDOWS + FAST
