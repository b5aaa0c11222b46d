"""Shared by tests: services, callers, speech, files."""
