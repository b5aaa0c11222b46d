"""Tokens around one call of CTranslate2's `generate`: the prompt before it, the segments after it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from faster_whisper.tokenizer import Tokenizer

from stt_server.engine.types import DecodeOptions

MAX_LENGTH = 448
"""Tokens of Whisper's decoder, the prompt's included."""
MAX_PROMPT_TOKENS = MAX_LENGTH // 2 - 1
SECONDS_PER_TIMESTAMP = 0.02
TOKENS_PER_SECOND = 25
TOKENS_AT_LEAST = 16
CONTEXT_TOKENS = 64
"""Of what was said just before: all of these, or none, as CTranslate2 wants prompts of one length in a batch.

Word error rates of live streams, of 1260 words and 3618, without and with them: base 13.7 and 13.3 %, tiny.en 9.0 and
9.4 %. Of 16 or 32 tokens, a piece of a sentence, both models make more errors than without.
"""


@dataclass(frozen=True)
class TimedTokens:
    """The tokens of one segment, between two timestamps in seconds from the start of the window."""

    start: float
    end: float
    tokens: tuple[int, ...]


def earlier_tokens(tokenizer: Tokenizer, options: DecodeOptions) -> tuple[int, ...]:
    """The tokens of what was said before the audio: hotwords, the prompt, the context; cut to `MAX_PROMPT_TOKENS`."""
    earlier: list[int] = []
    context = tokenizer.encode(" " + options.context.strip())[-CONTEXT_TOKENS:] if options.context.strip() else []
    if len(context) < CONTEXT_TOKENS:
        context = []
    if options.hotwords:
        earlier += tokenizer.encode(" " + ", ".join(options.hotwords))[: MAX_PROMPT_TOKENS // 2]
    if options.prompt.strip():
        room = MAX_PROMPT_TOKENS - len(earlier) - len(context)
        earlier += tokenizer.encode(" " + options.prompt.strip())[-room:]
    return (*earlier, *context)


def prompt_tokens(tokenizer: Tokenizer, earlier: Sequence[int]) -> list[int]:
    """The tokens before the text: what was said earlier, then language and task.

    Timestamps are always decoded: on a shortened window, decoding without them makes Whisper loop.
    """
    return [*([tokenizer.sot_prev, *earlier] if earlier else []), *tokenizer.sot_sequence]


def max_length(seconds: float, prompt: int) -> int:
    """CTranslate2's `max_length` for so many seconds of audio after a prompt of so many tokens.

    A loop is cut where no speech could have got to: scripts that cost several tokens a letter stay under
    `TOKENS_PER_SECOND`. CTranslate2 generates at most half of `max_length`.
    """
    wanted = math.ceil(TOKENS_AT_LEAST + seconds * TOKENS_PER_SECOND)
    return min(MAX_LENGTH, max(2 * wanted, wanted + prompt))


def split_segments(tokens: Sequence[int], tokenizer: Tokenizer, window_end: float) -> list[TimedTokens]:
    """Cuts decoded tokens at their timestamps.

    Args:
        window_end: seconds; the end of a segment whose closing timestamp is missing.
    """
    return [segment for segment in _segments(tokens, tokenizer, window_end) if segment.tokens]


def _segments(tokens: Sequence[int], tokenizer: Tokenizer, window_end: float) -> Iterator[TimedTokens]:
    start = 0.0
    text: list[int] = []
    for token in tokens:
        if token < tokenizer.eot:
            text.append(token)
        elif token >= tokenizer.timestamp_begin:
            time = (token - tokenizer.timestamp_begin) * SECONDS_PER_TIMESTAMP
            if text:
                yield TimedTokens(start, min(time, window_end), tuple(text))
                text = []
            start = time
    yield TimedTokens(min(start, window_end), window_end, tuple(text))


def by_segment(values: Sequence[float], segments: Sequence[TimedTokens]) -> list[list[float]]:
    """A value for each token of some segments, segment by segment."""
    position = 0
    parts = []
    for segment in segments:
        parts.append(list(values[position : position + len(segment.tokens)]))
        position += len(segment.tokens)
    return parts
