"""Converts between text and tokens: the prompt of CTranslate2's `generate`, and the segments in its output."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile

from faster_whisper.tokenizer import Tokenizer

from stt_server.engine.types import DecodeOptions

MAX_LENGTH = 448
"""Most tokens in Whisper's decoder, including the prompt."""
MAX_PROMPT_TOKENS = MAX_LENGTH // 2 - 1
SECONDS_PER_TIMESTAMP = 0.02
TOKENS_PER_SECOND = 12
"""Most text tokens per second of audio. 85 recordings in Latin, Cyrillic, Greek, Chinese, Japanese and Korean script
have 3 to 8 with Whisper's vocabulary, and one second of fast English 11."""
TOKENS_PER_SECOND_BY_LETTER = 25
"""The same in scripts of which Whisper's vocabulary has letters and parts of letters, but hardly any words."""
WRITTEN_BY_LETTER = "am ar as bn bo fa gu he hi hy ka km kn lo ml mr my ne pa ps sa sd si ta te th ur yi"
TOKENS_AT_LEAST = 16
CONTEXT_TOKENS = 64
"""Tokens of context, all of them or none: CTranslate2 needs prompts of the same length in a batch.

Word error rates of live streams (1260 and 3618 words) without and with context: base 13.7 and 13.3 %, tiny.en 9.0 and
9.4 %. With 16 or 32 tokens, which are less than a sentence, both models make more errors than without context.
"""


@dataclass(frozen=True)
class TimedTokens:
    """The text tokens of one segment, with its timestamps in seconds from the start of the window."""

    start: float
    end: float
    tokens: tuple[int, ...]

    @property
    def seconds(self) -> float:
        return self.end - self.start


def earlier_tokens(tokenizer: Tokenizer, options: DecodeOptions) -> tuple[int, ...]:
    """Tokens of hotwords, prompt and context, in this order, at most `MAX_PROMPT_TOKENS`."""
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
    """The full prompt: earlier text, then language and task.

    Timestamps are always decoded: on a shortened window, Whisper loops without them.
    """
    return [*([tokenizer.sot_prev, *earlier] if earlier else []), *tokenizer.sot_sequence]


def tokens_per_second(language: str) -> int:
    """Most text tokens per second of speech in a language, given by its code."""
    return TOKENS_PER_SECOND_BY_LETTER if language in WRITTEN_BY_LETTER.split() else TOKENS_PER_SECOND


def max_length(seconds: float, per_second: int, prompt: int) -> int:
    """CTranslate2's `max_length` for a window with `seconds` of audio and `prompt` tokens before the text.

    Bounds a loop to more tokens than speech can have. CTranslate2 generates at most half of `max_length`.

    Args:
        per_second: most text tokens per second of audio.
    """
    wanted = math.ceil(TOKENS_AT_LEAST + seconds * per_second)
    return min(MAX_LENGTH, max(2 * wanted, wanted + prompt))


def split_segments(tokens: Sequence[int], tokenizer: Tokenizer, window_end: float) -> list[TimedTokens]:
    """Split decoded tokens at their timestamps.

    From the second segment on, those that begin when the audio has ended are left out: no speech is there. Whisper
    repeats itself in them, as probably as the first time; a repetition before them, in less than half the time of its
    like, is left out too. A single segment may be timed late.

    Args:
        window_end: seconds; the end of a segment without a closing timestamp, and the latest end of any.
    """
    segments = [segment for segment in _segments(tokens, tokenizer, window_end) if segment.tokens]
    kept = [*segments[:1], *takewhile(lambda segment: segment.start < window_end, segments[1:])]
    if len(kept) < len(segments):
        while len(kept) > 1 and kept[-1].tokens == kept[-2].tokens and kept[-1].seconds < kept[-2].seconds / 2:
            kept.pop()
    return kept


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
    """Split per-token values into one list for each segment."""
    position = 0
    parts = []
    for segment in segments:
        parts.append(list(values[position : position + len(segment.tokens)]))
        position += len(segment.tokens)
    return parts
