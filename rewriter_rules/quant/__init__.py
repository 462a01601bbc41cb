"""Quantised linear layers as exporters leave them, and the forms that runtimes compute fast."""
