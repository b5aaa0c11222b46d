"""Who may call, how often, from where, and over what: keys, rate limit, addresses, TLS."""
