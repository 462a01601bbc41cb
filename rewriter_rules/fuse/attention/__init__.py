"""Attention and rotary embeddings, in all their spellings, as one operator."""

from vlmpass.rewriter_rules.fuse.attention.attention_core import CORES

__all__ = ["ATTENTION"]

ATTENTION = CORES
