"""A fused operator said in primitive ones."""

from vlmpass.rewriter_rules.unfuse.channels import CHANNELS
from vlmpass.rewriter_rules.unfuse.contrib import CONTRIB as SIMPLE
from vlmpass.rewriter_rules.unfuse.dequantized import DEQUANTIZED
from vlmpass.rewriter_rules.unfuse.embedded import EMBEDDED
from vlmpass.rewriter_rules.unfuse.experts import EXPERTS
from vlmpass.rewriter_rules.unfuse.grouped import GROUPED
from vlmpass.rewriter_rules.unfuse.multihead import MULTIHEAD
from vlmpass.rewriter_rules.unfuse.multiplied import MULTIPLIED
from vlmpass.rewriter_rules.unfuse.packed_heads import PACKED_HEADS
from vlmpass.rewriter_rules.unfuse.projected import PROJECTED
from vlmpass.rewriter_rules.unfuse.rows import ROWS
from vlmpass.rewriter_rules.unfuse.same_names import SAME_NAMES
from vlmpass.rewriter_rules.unfuse.standard import STANDARD
from vlmpass.rewriter_rules.unfuse.tabled import TABLED
from vlmpass.rewriter_rules.unfuse.turned import TURNED
from vlmpass.rewriter_rules.unfuse.unfused import why_it_stays
from vlmpass.rewriter_rules.unfuse.unpacked import UNPACKED

__all__ = ["CONTRIB", "STANDARD", "UNFUSE", "why_it_stays"]

CONTRIB = (
    SIMPLE
    + MULTIHEAD
    + GROUPED
    + TURNED
    + UNPACKED
    + TABLED
    + EMBEDDED
    + MULTIPLIED
    + CHANNELS
    + PROJECTED
    + PACKED_HEADS
    + DEQUANTIZED
    + ROWS
    + EXPERTS
    + SAME_NAMES
)
UNFUSE = CONTRIB + STANDARD
