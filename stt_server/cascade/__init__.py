"""Whose answer a request gets: settling, escalation to the fallback, merging, circuit breaker, hot swap."""
