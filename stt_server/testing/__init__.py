"""Shared by tests and buildscripts, not for production: scripted model, child processes, load generator, recordings."""
