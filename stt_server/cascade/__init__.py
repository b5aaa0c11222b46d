"""Two models behind one answer: settling, escalation, merging, circuit breaker, hot swap of the fallback."""
