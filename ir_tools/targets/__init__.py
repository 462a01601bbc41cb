"""What a runtime supports, as data."""
