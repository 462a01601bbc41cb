"""What happens around a pass: timing, verification, dumps, limits, provenance."""
