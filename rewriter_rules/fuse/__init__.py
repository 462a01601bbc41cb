"""Several nodes become the one operator they spell out."""

from vlmpass.rewriter_rules.fuse.activations import ACTIVATIONS
from vlmpass.rewriter_rules.fuse.attention import ATTENTION
from vlmpass.rewriter_rules.fuse.norms import NORMS
from vlmpass.rewriter_rules.fuse.reductions import REDUCTIONS

__all__ = ["ACTIVATIONS", "ATTENTION", "FUSE", "NORMS", "REDUCTIONS"]

FUSE = NORMS + ACTIVATIONS + REDUCTIONS + ATTENTION
