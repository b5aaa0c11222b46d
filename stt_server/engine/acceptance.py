"""Decides whether a decoded text is accepted or decoded again."""

from __future__ import annotations

from stt_server.engine.generation import Decoded
from stt_server.engine.hallucination import Evidence, hallucination_reason
from stt_server.engine.text_checks import is_looped, is_too_fast, stops_early
from stt_server.engine.types import Chunk, speech_end, speech_seconds

RESAMPLE_LOGPROB = -1.0
"""Mean natural log-probability of text tokens below which a text is sampled again: openai/whisper's
`logprob_threshold`."""


def needs_resampling(decoded: Decoded) -> bool:
    """Whether a text loops or is too improbable."""
    return bool(decoded.text.strip()) and (is_looped(decoded.text) or decoded.mean_logprob < RESAMPLE_LOGPROB)


def plausibility(decoded: Decoded) -> tuple[bool, float]:
    """Sort key: texts without a loop rank above looping ones, then by mean log-probability."""
    return not is_looped(decoded.text), decoded.mean_logprob


def rejection_reason(decoded: Decoded, chunk: Chunk) -> str | None:
    """Why a text decoded on a shortened window is rejected; None if it is accepted."""
    speech = speech_seconds(chunk)
    if not decoded.text.strip():
        return "empty" if speech > 0 else None
    if is_looped(decoded.text):
        return "loop"
    if stops_early(decoded.end, speech_end(chunk)):
        return "early_stop"
    if is_too_fast(decoded.text, speech):
        return "too_fast"
    # Models overestimate the probability of silence on a short window: only the full one may drop a text.
    evidence = Evidence.of(chunk, decoded.text, decoded.no_speech_prob, decoded.token_logprobs)
    return "hallucination" if hallucination_reason(evidence) else None
