"""Several nodes become the one operator they spell out."""
