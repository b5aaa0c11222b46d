"""What operators see: metrics, GPU gauges, logs, the status snapshot."""
