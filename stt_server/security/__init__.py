"""API keys, rate limit, client addresses, and TLS."""
