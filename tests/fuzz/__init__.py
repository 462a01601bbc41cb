"""Random models, files and runs; importing it makes every recipe known."""

from . import recipes_contrib, recipes_nested

__all__ = ["recipes_contrib", "recipes_nested"]
