"""Decides whether a decoded text is accepted or decoded again."""

from __future__ import annotations

from collections.abc import Sequence

from stt_server.engine.generation import Decoded
from stt_server.engine.hallucination import Evidence, hallucination_reason
from stt_server.engine.text_checks import is_looped, is_spoken_repetition, is_too_fast, stops_early
from stt_server.engine.types import Chunk, speech_end, speech_seconds

RESAMPLE_LOGPROB = -1.0
"""Mean natural log-probability of text tokens below which a text is sampled again: openai/whisper's
`logprob_threshold`."""


TOKEN_SECONDS = 0.7
"""What the decoder takes for a token of a single item, in seconds of window that the encoder takes as long for: 9 ms
and 13 ms per second with Whisper base on a CPU."""
REDECODED_SECONDS_PER_SECOND = 14.0
"""Most seconds that all repeated decodings of a chunk take, for each second of its audio. In the
same unit a first decoding of ordinary speech takes four to five, so a chunk costs about four times that at most."""


class RedecodingBudget:
    """What decoding a chunk again may cost: the one limit for wider windows, samples, stretches, gaps and the rest.

    In seconds of encoded window; a generated token counts as `TOKEN_SECONDS`. Not in time, so that a text doesn't
    depend on how busy the machine is.
    """

    def __init__(self, seconds: float, window: float) -> None:
        """
        Args:
            seconds: of the chunk's audio.
            window: of the first decoding, in seconds: one of this size is always allowed.
        """
        self.left = max(window, REDECODED_SECONDS_PER_SECOND * seconds)
        """Seconds that may still be taken."""
        self.spent = 0.0
        """Seconds taken so far."""

    def take(self, window: float) -> bool:
        """Whether a window of this many seconds may be encoded and decoded; its encoding is then charged."""
        if window > self.left:
            return False
        self._spend(window)
        return True

    def charge(self, decoded: Decoded) -> Decoded:
        """Charge the tokens of a decoding, and return it."""
        self._spend(TOKEN_SECONDS * len(decoded.token_logprobs))
        return decoded

    def _spend(self, seconds: float) -> None:
        self.left -= seconds
        self.spent += seconds


def is_loop(text: str, chunk: Chunk) -> bool:
    """Whether a text is a repetition loop, and not a repetition that the speech can hold."""
    if not is_looped(text):
        return False
    return not (chunk.speech_certain and is_spoken_repetition(text, chunk.speech))


def needs_resampling(decoded: Decoded, chunk: Chunk) -> bool:
    """Whether a text loops or is too improbable."""
    return bool(decoded.text.strip()) and (is_loop(decoded.text, chunk) or decoded.mean_logprob < RESAMPLE_LOGPROB)


def are_credible(parts: Sequence[Decoded]) -> bool:
    """Whether the texts of stretches of speech, each decoded by itself, are no loops and probable enough together."""
    logprobs = [logprob for part in parts for logprob in part.token_logprobs]
    looped = any(is_looped(part.text) for part in parts)
    return bool(logprobs) and not looped and sum(logprobs) / len(logprobs) >= RESAMPLE_LOGPROB


def plausibility(decoded: Decoded, chunk: Chunk) -> tuple[bool, float]:
    """Sort key: texts without a loop rank above looping ones, then by mean log-probability."""
    return not is_loop(decoded.text, chunk), decoded.mean_logprob


def rejection_reason(decoded: Decoded, chunk: Chunk) -> str | None:
    """Why a text decoded on a shortened window is rejected; None if it is accepted."""
    speech = speech_seconds(chunk)
    if not decoded.text.strip():
        return "empty" if speech > 0 else None
    if is_loop(decoded.text, chunk):
        return "loop"
    if stops_early(decoded.end, speech_end(chunk)):
        return "early_stop"
    if is_too_fast(decoded.text, speech):
        return "too_fast"
    # Models overestimate the probability of silence on a short window: only the full one may drop a text.
    evidence = evidence_of(chunk, decoded.text, decoded.no_speech_prob, decoded.token_logprobs)
    return "hallucination" if hallucination_reason(evidence) else None


def evidence_of(chunk: Chunk, text: str, no_speech_prob: float, logprobs: Sequence[float]) -> Evidence:
    """What speaks for and against a chunk's text.

    Args:
        logprobs: natural log-probabilities of the text tokens.
    """
    mean = sum(logprobs) / len(logprobs) if logprobs else 0.0
    return Evidence(text, no_speech_prob, mean, speech_seconds(chunk), chunk.speech_certain, is_loop(text, chunk))
