"""Measurement of a deployment under load: closed-loop callers, and what their figures say about capacity."""
