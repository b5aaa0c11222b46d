"""Fuzzing of everything that parses untrusted input."""
