"""Recognition with a Whisper model: chunks in, hypotheses out. Independent of gRPC."""
