"""Hallucinations: texts that a model makes up where there is no speech, such as "Thank you.", "you" or "oh, oh, oh".

Voice activity detection keeps most such audio away from the model. If it were stricter it would miss whispers, so it
passes audio that may be speech, and the model's own output decides: its probability of no speech, the log-probability
of its text, and whether the text loops. Where the VAD was certain, only clear cases are dropped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from stt_server.engine.text_checks import is_too_fast

Reason = Literal["no_speech", "low_logprob", "loop", "too_fast"]
REASONS: tuple[Reason, ...] = get_args(Reason)

MAX_IMPLAUSIBILITY = 0.7
"""Limit for audio that may be speech.

Measured with Whisper base and tiny.en: a whisper and a falsetto score up to 0.34; texts made from noise, hum, tones,
clicks, breath and music at least 0.77, unless they loop.
"""

MAX_IMPLAUSIBILITY_OF_FAST_TEXT = 0.5
"""The same for a text with more words than fit into the speech: the VAD finds a third of a second of a falsetto between
two usual voices, of which base and tiny.en write nine words with 0.25 and 0.34.

No text that they made from noise is decided by this: those that don't loop have at least 0.85.
"""

NO_SPEECH_PROBABILITY, NO_SPEECH_LOGPROB = 0.8, -1.5
"""Both limits must be crossed where speech is certain. openai/whisper's 0.6 and -1 would drop words that are cut off at
both ends: 6 of 69 blind snippets of 0.7 s. An improbable text is escalated to the fallback instead.
"""

LOOP_NO_SPEECH_PROBABILITY = 0.25
"""Where speech is certain, a loop counts as a hallucination only above this probability of no speech. Below it, the
model failed on real speech, and another model may do better.

Measured: 100 real utterances have up to 0.32, almost all under 0.1; loops made from music at least 0.35.
"""


@dataclass(frozen=True)
class Evidence:
    """The text of a chunk and what speaks for and against it."""

    text: str
    no_speech_prob: float
    """The model's, 0 to 1."""
    mean_logprob: float
    """Natural, over the text tokens."""
    speech_seconds: float
    """Seconds in which the VAD detected speech or possible speech."""
    speech_certain: bool
    """Whether the VAD was certain of speech."""
    looped: bool
    """Whether the text is a repetition loop, judged against the speech."""


def implausibility(no_speech_prob: float, mean_logprob: float) -> float:
    """Score from 0 (certain) upwards without a bound.

    Neither number suffices alone: noise has a low log-probability but so has a strong accent, and a quiet voice has a
    high probability of no speech. The factor of a quarter brings their usual ranges to the same scale.
    """
    return no_speech_prob - mean_logprob / 4


def hallucination_reason(evidence: Evidence) -> Reason | None:
    """Why a text should be dropped; None to keep it. An empty text is always kept."""
    if not evidence.text.strip():
        return None
    if evidence.speech_certain:
        if evidence.looped and evidence.no_speech_prob > LOOP_NO_SPEECH_PROBABILITY:
            return "loop"
        silent = evidence.no_speech_prob > NO_SPEECH_PROBABILITY and evidence.mean_logprob < NO_SPEECH_LOGPROB
        return "no_speech" if silent else None
    if evidence.looped:
        return "loop"
    score = implausibility(evidence.no_speech_prob, evidence.mean_logprob)
    if score > MAX_IMPLAUSIBILITY:
        return "no_speech" if evidence.no_speech_prob >= 0.5 else "low_logprob"
    doubtful = score > MAX_IMPLAUSIBILITY_OF_FAST_TEXT
    return "too_fast" if doubtful and is_too_fast(evidence.text, evidence.speech_seconds) else None
