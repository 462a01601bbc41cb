"""Strategy: what is done to a whole model, one file per pass."""
