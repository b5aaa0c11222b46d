"""Whether the primary's answer stands, or the fallback is asked, and why.

Pure: signals, thresholds and what the request wants go in, a decision comes out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from typing import Literal

Policy = Literal["auto", "primary", "fallback"]
"""Per request: the thresholds decide; never ask the fallback; ask only the fallback."""


USUAL_WORDS = 12
"""Of a text for which the combined signal is the mean one."""


class Reason(Enum):
    """Why a request was, or would have been, sent to the fallback. The value is its text form."""

    LOW_LOGPROB = "low_logprob"
    LOW_LANGUAGE_PROBABILITY = "low_language_probability"
    FEW_WORDS = "few_words"
    REPETITION = "repetition"
    PRIMARY_ERROR = "primary_error"
    REQUESTED = "requested"


CONFIDENCE_REASONS = frozenset(
    {Reason.LOW_LOGPROB, Reason.LOW_LANGUAGE_PROBABILITY, Reason.FEW_WORDS, Reason.REPETITION}
)
"""The checks of the primary's own answer; any of them makes `confidence_below` true."""


@dataclass(frozen=True)
class Thresholds:
    """Configuration; see the keys of the same names."""

    conf_logprob: float = 0.55
    """0 to 1; compared with exp(mean token log-probability)."""
    conf_langprob: float = 0.70
    """0 to 1; used only where the language was detected."""
    min_words: int = 3
    signal: Literal["mean", "combined"] = "mean"


@dataclass(frozen=True)
class Signals:
    """What the primary's answer says of itself."""

    speech: bool
    """Voice activity was heard. Without it an empty text is the right answer, and nothing is checked."""
    words: int = 0
    confidence: float | None = None
    """exp(mean token log-probability), 0 to 1; None for an empty text."""
    language_probability: float | None = None
    """0 to 1; None where the language was not detected."""
    looped: bool = False
    chunks: int = 1
    """That `words` and `confidence` are of."""


@dataclass(frozen=True)
class Decision:
    escalate: bool
    """Ask the fallback."""
    reasons: tuple[Reason, ...]
    """In the order of `Reason`; also where the answer is kept all the same."""

    @property
    def confidence_below(self) -> bool:
        return any(reason in CONFIDENCE_REASONS for reason in self.reasons)


def decide(
    signals: Signals | None, thresholds: Thresholds, *, policy: Policy = "auto", fallback_configured: bool = True
) -> Decision:
    """Judges the primary's answer.

    Args:
        signals: of the primary's answer; None if it failed, or was not asked as `policy` is `fallback`.
        policy: what the request asks for.
        fallback_configured: there is somebody to ask.
    """
    if policy == "fallback" and signals is None:
        return Decision(fallback_configured, (Reason.REQUESTED,))
    reasons = (Reason.PRIMARY_ERROR,) if signals is None else tuple(_doubts(signals, thresholds))
    return Decision(bool(reasons) and policy == "auto" and fallback_configured, reasons)


def _doubts(signals: Signals, thresholds: Thresholds) -> list[Reason]:
    if not signals.speech:
        return []
    doubts = []
    if _judged(signals, thresholds.signal) < thresholds.conf_logprob:
        doubts.append(Reason.LOW_LOGPROB)
    if signals.language_probability is not None and signals.language_probability < thresholds.conf_langprob:
        doubts.append(Reason.LOW_LANGUAGE_PROBABILITY)
    if signals.words < thresholds.min_words:
        doubts.append(Reason.FEW_WORDS)
    if signals.looped:
        doubts.append(Reason.REPETITION)
    return doubts


def _judged(signals: Signals, signal: Literal["mean", "combined"]) -> float:
    """The confidence that the threshold is compared with, 0 to 1; an empty text is none at all."""
    if signals.confidence is None:
        return 0.0
    return combined(signals) if signal == "combined" else signals.confidence


def combined(signals: Signals) -> float:
    """Confidence in a text as a whole, 0 to 1, on the scale of its mean confidence; 0 for an empty text.

    A long text that is as unsure as a short one holds more wrong words, so it is worth more to hear again: the
    mean log-probability is weighted with the square root of the number of words of a chunk. (Weighted with the
    number itself it would be the probability of the whole text, which is low for every long one.) A text of
    `USUAL_WORDS` keeps its mean confidence, so that thresholds send about as many recordings to the fallback.
    """
    if signals.confidence is None:
        return 0.0
    words = max(1.0, signals.words / max(1, signals.chunks))
    return math.pow(signals.confidence, math.sqrt(words / USUAL_WORDS))


def better_founded(
    primary: float | None, fallback: float | None, *, fallback_looped: bool = False
) -> Literal["primary", "fallback"]:
    """Whose answer to return for `FINAL_CHOICE=best`: the surer one's; the fallback's where that can't be told.

    Args:
        primary, fallback: exp(mean token log-probability) of each; None for an empty text.
        fallback_looped: its text repeats itself. A model is very sure of a loop, so confidence says nothing then.
    """
    if primary is not None and fallback_looped:
        return "primary"
    if primary is None or fallback is None or fallback >= primary:
        return "fallback"
    return "primary"
