"""Live streams: one call, or several that resume each other."""
