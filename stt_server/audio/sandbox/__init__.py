"""Decodes untrusted files in confined child processes."""
