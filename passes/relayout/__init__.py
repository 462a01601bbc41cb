"""Decoder files laid out anew: logits, caches, weights that two ends share."""
