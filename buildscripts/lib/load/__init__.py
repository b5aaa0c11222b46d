"""Load generators, recordings, and measurements of processes."""
