"""Checks and measures the engine on a GPU."""
