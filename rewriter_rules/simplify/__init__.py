"""Fewer nodes, same values."""
