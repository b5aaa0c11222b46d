"""Live streams over one connection, or several that resume each other."""
