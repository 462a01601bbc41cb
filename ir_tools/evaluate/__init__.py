"""Evaluating one node on constant inputs, as exactly as a runtime does."""
