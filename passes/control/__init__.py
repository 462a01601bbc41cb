"""Control flow that is decided before the model runs."""
