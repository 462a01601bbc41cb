"""What changes from opset to opset, a file for each family of operators; all are found here."""

from importlib import import_module
from pkgutil import iter_modules

__all__ = ["FAMILIES"]

FAMILIES = tuple(import_module(f"{__name__}.{module.name}") for module in iter_modules(__path__))
"""Imported for what they enter into the table."""
