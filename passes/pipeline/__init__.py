"""How passes are written down, found, ordered and run."""
