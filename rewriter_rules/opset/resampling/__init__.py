"""Interpolation as matrix products and gathers."""
