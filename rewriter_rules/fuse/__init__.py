"""Several nodes become the one operator they spell out."""

from vlmpass.rewriter_rules.fuse.activations import ACTIVATIONS
from vlmpass.rewriter_rules.fuse.norms import NORMS

__all__ = ["ACTIVATIONS", "FUSE", "NORMS"]

FUSE = NORMS + ACTIVATIONS
