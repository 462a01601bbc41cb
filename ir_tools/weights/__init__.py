"""A small algebra of lazy tensors, evaluated in chunks by the writer."""
