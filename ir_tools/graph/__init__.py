"""Graphs: walked, edited, named, copied, described."""
