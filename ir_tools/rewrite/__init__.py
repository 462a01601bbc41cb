"""The rewriter: patterns, rules and the engine that applies them."""
