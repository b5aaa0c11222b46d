"""What operators see: metrics, GPU gauges, logs, and the JSON snapshot."""
