"""Limits of the text options, for services and for callers that shorten lists. Knows no gRPC and no protobuf."""

MAX_HOTWORDS = 200
MAX_HOTWORD_CHARACTERS = 100
MAX_PROMPT_CHARACTERS = 4000
