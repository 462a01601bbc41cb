"""Knowledge: what equals what."""
