"""Mechanism: load, weights, save, rewriting, types, running and comparing."""
