"""Several nodes become one operator."""
