"""What may be asked of a model."""

from __future__ import annotations

from stt_server.engine.types import DecodeOptions, ModelInfo
from stt_server.errors import InvalidArgument

MAX_PROMPT_CHARACTERS = 4000
MAX_HOTWORDS = 200
MAX_HOTWORD_CHARACTERS = 100


def check_options(options: DecodeOptions, info: ModelInfo) -> None:
    """Raises InvalidArgument, naming it, for what the model doesn't know or what is too long."""
    known = info.languages
    for code in filter(None, [options.language, *options.candidate_languages]):
        if code not in known:
            only = f"this model knows only {known[0]}" if len(known) == 1 else "use an ISO 639-1 code such as en"
            raise InvalidArgument(f"unknown language {code[:20]!r}: {only}")
    if len(options.prompt) > MAX_PROMPT_CHARACTERS:
        raise InvalidArgument(f"prompt: at most {MAX_PROMPT_CHARACTERS} characters")
    if len(options.hotwords) > MAX_HOTWORDS or any(len(w) > MAX_HOTWORD_CHARACTERS for w in options.hotwords):
        raise InvalidArgument(f"hotwords: at most {MAX_HOTWORDS} of {MAX_HOTWORD_CHARACTERS} characters")
