"""A live session: bytes as they come -> events. Knows no gRPC, no protobuf, no Prometheus.

    wire bytes -> intake (samples) -> activity (probabilities) -> endpointing (utterances)
    an utterance -> drafts -> agreement (stable prefixes) -> interims; and at its end a final

`session` holds it together for one stream, `registry` knows all streams of a service.
"""
