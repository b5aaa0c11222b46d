"""Long runs that show what grows."""
