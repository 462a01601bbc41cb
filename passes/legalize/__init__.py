"""The pass that makes every node one that a target runs."""
