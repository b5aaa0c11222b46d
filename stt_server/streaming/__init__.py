"""Live streams: bytes as they arrive -> events. Knows no gRPC, protobuf or Prometheus.

    bytes -> resampling (samples) -> voice activity (probabilities) -> endpointing (events)
    an utterance -> drafts -> agreement (stable prefixes) -> interims; when it has ended, a final

`registry` opens and drains all streams of a service. `session` runs one stream, from its config to its last event.
"""
