"""A fused operator said in primitive ones."""
