"""The model: chunks in, hypotheses out. Knows no gRPC."""
