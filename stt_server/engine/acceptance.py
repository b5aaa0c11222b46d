"""What a decoding is worth: whether to trust it, try again, or drop it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from stt_server.engine import hallucination as invention
from stt_server.engine import text_checks as guard
from stt_server.engine.tokens import TimedTokens
from stt_server.engine.types import Chunk, Word, speech_seconds

HOPELESS_LOGPROB = -1.0
"""Natural, mean over the text tokens: openai/whisper's `logprob_threshold`."""


@dataclass(frozen=True)
class Decoded:
    segments: list[TimedTokens]
    logprobs: list[list[float]]
    """Per segment, of its text tokens."""
    words: list[list[Word]]
    no_speech_prob: float
    text: str

    @property
    def mean_logprob(self) -> float:
        values = [p for ps in self.logprobs for p in ps]
        return sum(values) / len(values) if values else 0.0

    @property
    def end(self) -> float:
        return self.segments[-1].end if self.segments else 0.0


def hopeless(decoded: Decoded) -> bool:
    """Whether a text is worth another try by chance."""
    return bool(decoded.text.strip()) and (guard.is_looped(decoded.text) or decoded.mean_logprob < HOPELESS_LOGPROB)


def promise(decoded: Decoded) -> tuple[bool, float]:
    return not guard.is_looped(decoded.text), decoded.mean_logprob


def speech_end(chunk: Chunk) -> float:
    return chunk.speech[-1][1] if chunk.speech else 0.0


def invented_reason(chunk: Chunk, text: str, no_speech_prob: float, logprobs: Sequence[float]) -> str | None:
    """Why the text of a chunk is nobody's words; None if it is to be kept."""
    return invention.invented(
        invention.Facts(
            text=text,
            no_speech_prob=no_speech_prob,
            mean_logprob=sum(logprobs) / len(logprobs) if logprobs else 0.0,
            speech_seconds=speech_seconds(chunk),
            speech_certain=chunk.speech_certain,
        )
    )


def doubt_of(decoded: Decoded, chunk: Chunk) -> str | None:
    """Why a text decoded on a shortened window is not to be trusted; None if it is."""
    speech = speech_seconds(chunk)
    if not decoded.text.strip():
        return "empty" if speech > 0 else None
    if guard.is_looped(decoded.text):
        return "loop"
    if guard.stops_early(decoded.end, speech_end(chunk)):
        return "early_stop"
    if guard.is_too_fast(decoded.text, speech):
        return "too_fast"
    # On a short window a model holds silence for more likely than on its full one: only that one convicts.
    convicted = invented_reason(chunk, decoded.text, decoded.no_speech_prob, [p for ps in decoded.logprobs for p in ps])
    return "invented" if convicted else None
