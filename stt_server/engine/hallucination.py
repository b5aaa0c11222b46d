"""Texts that a model invents where nobody speaks: "Thank you.", "you", a song's "oh, oh, oh".

Voice activity detection keeps most of such audio away from the model, and misses whispers if it is too strict. So it
lets through what may be speech, and the model itself is asked: how probable it holds that nobody speaks, how sure it
is of its words, and whether they repeat themselves. Where the VAD was sure, only a plain case is dropped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from stt_server.engine import text_checks as guard

Reason = Literal["no_speech", "low_logprob", "loop", "too_fast"]
REASONS: tuple[Reason, ...] = get_args(Reason)

MAX_DOUBT = 0.7
"""For audio that may be speech.

Measured with Whisper base and tiny.en: a whisper and a falsetto score up to 0.34, and texts made of noise, hum, tones,
clicks, breath and music 0.77 at least, unless they repeat themselves.
"""

NO_SPEECH_PROBABILITY, NO_SPEECH_LOGPROB = 0.8, -1.5
"""For audio that is speech for certain. openai/whisper's 0.6 and -1 would drop words that are cut off at both ends:
6 of 69 blind snippets of 0.7 s. An unsure text is a matter for the fallback, as long as it may be one.
"""

LOOP_NO_SPEECH_PROBABILITY = 0.25
"""A loop over certain speech is a model's failure, to be tried again elsewhere; over music it is an invention.

Measured: 100 real utterances have up to 0.32, almost all under 0.1; loops that were made of music 0.35 at least.
"""


@dataclass(frozen=True)
class Facts:
    """What is known of a text that a model made of a chunk."""

    text: str
    no_speech_prob: float
    """The model's, 0 to 1."""
    mean_logprob: float
    """Natural, over the text tokens."""
    speech_seconds: float
    """In which the VAD heard speech, or what may be speech."""
    speech_certain: bool
    """The VAD was sure of speech."""


def doubt(no_speech_prob: float, mean_logprob: float) -> float:
    """How little a text convinces: 0 for one beyond doubt, upwards without a bound.

    Neither number tells alone: noise has a low log-probability but so has a heavy accent, and a quiet voice a high
    probability of no speech. A quarter weighs their usual ranges alike.
    """
    return no_speech_prob - mean_logprob / 4


def invented(facts: Facts) -> Reason | None:
    """Why a text is to be dropped; None if it is to be kept, as an empty one always is."""
    if not facts.text.strip():
        return None
    looped = guard.is_looped(facts.text)
    if facts.speech_certain:
        return _invented_in_speech(facts, looped)
    if looped:
        return "loop"
    if doubt(facts.no_speech_prob, facts.mean_logprob) > MAX_DOUBT:
        return "no_speech" if facts.no_speech_prob >= 0.5 else "low_logprob"
    return "too_fast" if guard.is_too_fast(facts.text, facts.speech_seconds) else None


def _invented_in_speech(facts: Facts, looped: bool) -> Reason | None:
    if looped and facts.no_speech_prob > LOOP_NO_SPEECH_PROBABILITY:
        return "loop"
    if facts.no_speech_prob > NO_SPEECH_PROBABILITY and facts.mean_logprob < NO_SPEECH_LOGPROB:
        return "no_speech"
    return None
