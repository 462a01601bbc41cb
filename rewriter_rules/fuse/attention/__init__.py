"""Attention and rotary embeddings, in all their spellings, as one operator."""

from vlmpass.rewriter_rules.fuse.attention.attention_core import CORES
from vlmpass.rewriter_rules.fuse.attention.causal import CAUSAL
from vlmpass.rewriter_rules.fuse.attention.grouped_queries import GROUPED_QUERIES
from vlmpass.rewriter_rules.fuse.attention.grouped_rotary import GROUPED_ROTARY
from vlmpass.rewriter_rules.fuse.attention.past_inside import PAST_INSIDE
from vlmpass.rewriter_rules.fuse.attention.rotary import ROTARY
from vlmpass.rewriter_rules.fuse.attention.turned_keys import TURNED_KEYS

__all__ = ["ATTENTION", "CORES"]

ATTENTION = TURNED_KEYS + ROTARY + CORES + GROUPED_QUERIES + GROUPED_ROTARY + PAST_INSIDE + CAUSAL
