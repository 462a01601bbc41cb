"""Axes get names or sizes, and the whole graph follows."""
