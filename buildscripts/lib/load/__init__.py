"""Load generators, their recordings, and what they measure."""
