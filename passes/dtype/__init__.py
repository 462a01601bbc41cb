"""Element types all over a model: unified, narrowed with islands, repaired."""
