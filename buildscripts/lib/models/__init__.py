"""Fetches, verifies and measures models and sample recordings."""
