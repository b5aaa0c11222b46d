"""Services with a scripted model, in this process or as real processes. For tests and buildscripts only."""
