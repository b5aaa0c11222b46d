"""Decide whether the primary's answer is kept or escalated to the fallback, and why.

Pure: signals, thresholds and the request's policy in, a decision out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from typing import Literal

Policy = Literal["auto", "primary", "fallback"]
"""Of a request: let the thresholds decide; never call the fallback; use only the fallback."""

TYPICAL_WORDS = 12
"""Number of words for which the combined signal equals the mean signal."""


class Reason(Enum):
    """Why a request was, or would have been, escalated. The value is its text form."""

    LOW_LOGPROB = "low_logprob"
    LOW_LANGUAGE_PROBABILITY = "low_language_probability"
    FEW_WORDS = "few_words"
    REPETITION = "repetition"
    PRIMARY_ERROR = "primary_error"
    REQUESTED = "requested"


CONFIDENCE_REASONS = frozenset(
    {Reason.LOW_LOGPROB, Reason.LOW_LANGUAGE_PROBABILITY, Reason.FEW_WORDS, Reason.REPETITION}
)
"""Reasons found by checking the primary's own answer; any of them makes `confidence_below` true."""


@dataclass(frozen=True)
class Thresholds:
    """Configured thresholds; see the configuration keys."""

    conf_logprob: float = 0.55
    """0 to 1; compared with exp(mean token log-probability)."""
    conf_langprob: float = 0.70
    """0 to 1; used only where the language was detected."""
    min_words: int = 3
    signal: Literal["mean", "combined"] = "mean"


@dataclass(frozen=True)
class Signals:
    """Measures of the primary's confidence in its answer."""

    speech: bool
    """Whether speech was detected. Without it an empty text is correct, and nothing else is checked."""
    words: int = 0
    confidence: float | None = None
    """exp(mean token log-probability), 0 to 1; None for an empty text."""
    language_probability: float | None = None
    """0 to 1; None where the language was not detected."""
    looped: bool = False
    """Whether the text is a repetition loop."""
    chunks: int = 1
    """Number of chunks that `words` and `confidence` cover."""


@dataclass(frozen=True)
class Decision:
    """Whether to call the fallback, and why."""

    escalate: bool
    reasons: tuple[Reason, ...]
    """In the order of `Reason`; also filled in where the answer is kept all the same."""

    @property
    def confidence_below(self) -> bool:
        return any(reason in CONFIDENCE_REASONS for reason in self.reasons)


def decide(
    signals: Signals | None, thresholds: Thresholds, *, policy: Policy = "auto", fallback_configured: bool = True
) -> Decision:
    """Judge the primary's answer.

    Args:
        signals: None if the primary failed, or was skipped because `policy` is `fallback`.
    """
    if policy == "fallback" and signals is None:
        return Decision(fallback_configured, (Reason.REQUESTED,))
    reasons = (Reason.PRIMARY_ERROR,) if signals is None else tuple(_reasons(signals, thresholds))
    return Decision(bool(reasons) and policy == "auto" and fallback_configured, reasons)


def _reasons(signals: Signals, thresholds: Thresholds) -> list[Reason]:
    if not signals.speech:
        return []
    reasons = []
    confidence = combined_confidence(signals) if thresholds.signal == "combined" else signals.confidence or 0.0
    if confidence < thresholds.conf_logprob:
        reasons.append(Reason.LOW_LOGPROB)
    if signals.language_probability is not None and signals.language_probability < thresholds.conf_langprob:
        reasons.append(Reason.LOW_LANGUAGE_PROBABILITY)
    if signals.words < thresholds.min_words:
        reasons.append(Reason.FEW_WORDS)
    if signals.looped:
        reasons.append(Reason.REPETITION)
    return reasons


def combined_confidence(signals: Signals) -> float:
    """Confidence in a text as a whole, 0 to 1, on the scale of its mean confidence; 0 for an empty text.

    At the same mean confidence a longer text holds more wrong words, so escalating it gains more: the mean
    log-probability is weighted with the square root of the number of words per chunk. (Weighted with the number itself
    it would be the probability of the whole text, which is low for every long one.) A text of `TYPICAL_WORDS` keeps its
    mean confidence, so that about as many recordings are escalated as with the mean signal.
    """
    if signals.confidence is None:
        return 0.0
    words = max(1.0, signals.words / max(1, signals.chunks))
    return math.pow(signals.confidence, math.sqrt(words / TYPICAL_WORDS))


def better_founded(
    primary: float | None, fallback: float | None, *, fallback_looped: bool = False
) -> Literal["primary", "fallback"]:
    """The model whose answer FINAL_CHOICE=best returns: that of higher confidence; the fallback where unknown.

    Args:
        primary, fallback: exp(mean token log-probability) of each; None for an empty text.
        fallback_looped: the fallback's text is a repetition loop, to which models give high confidence.
    """
    if primary is not None and fallback_looped:
        return "primary"
    if primary is None or fallback is None or fallback >= primary:
        return "fallback"
    return "primary"
