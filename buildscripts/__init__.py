"""What builds, fetches, runs and tests the pair; the commands themselves have no suffix."""
