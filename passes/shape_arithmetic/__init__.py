"""Shapes are computed once, and only where they are not known."""
