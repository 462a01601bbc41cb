"""What does not depend on any input is computed now, or by the writer."""
