"""Runs the pair on this machine."""
