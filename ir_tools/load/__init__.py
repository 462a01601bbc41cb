"""Open a model without reading its weights."""
