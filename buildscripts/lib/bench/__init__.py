"""Benchmarks: each compares figures of one run."""
