"""Element types of every value, from the operator schemas."""
