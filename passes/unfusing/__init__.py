"""Fused operators become several nodes."""
