"""The routing decision, over every combination of reasons."""

from __future__ import annotations

from dataclasses import replace

import pytest

from stt_server.routing import (
    CONFIDENCE_REASONS,
    Decision,
    Policy,
    Reason,
    Signals,
    Thresholds,
    better_founded,
    combined_confidence,
    decide,
)

GOOD = Signals(speech=True, words=5, confidence=0.9, language_probability=0.95)
LOGPROB, LANGUAGE = Reason.LOW_LOGPROB, Reason.LOW_LANGUAGE_PROBABILITY
FEW, LOOP = Reason.FEW_WORDS, Reason.REPETITION

SIGNALS = [
    # words, confidence, language probability, looped, reasons
    (10, 1.0, 1.0, False, ()),
    (3, 0.55, 0.70, False, ()),
    (3, 0.55, None, False, ()),
    (3, 0.5499, 0.70, False, (LOGPROB,)),
    (3, 0.0, None, False, (LOGPROB,)),
    (3, None, None, False, (LOGPROB,)),
    (3, 0.55, 0.6999, False, (LANGUAGE,)),
    (3, 0.55, 0.0, False, (LANGUAGE,)),
    (2, 0.55, 0.70, False, (FEW,)),
    (0, 0.55, 0.70, False, (FEW,)),
    (10, 0.9, 0.9, True, (LOOP,)),
    (3, 0.5, 0.5, False, (LOGPROB, LANGUAGE)),
    (2, 0.5, 0.70, False, (LOGPROB, FEW)),
    (3, 0.5, 0.70, True, (LOGPROB, LOOP)),
    (2, 0.55, 0.5, False, (LANGUAGE, FEW)),
    (3, 0.55, 0.5, True, (LANGUAGE, LOOP)),
    (2, 0.55, 0.70, True, (FEW, LOOP)),
    (2, 0.5, 0.5, False, (LOGPROB, LANGUAGE, FEW)),
    (3, 0.5, 0.5, True, (LOGPROB, LANGUAGE, LOOP)),
    (2, 0.5, None, True, (LOGPROB, FEW, LOOP)),
    (2, 0.55, 0.5, True, (LANGUAGE, FEW, LOOP)),
    (0, None, 0.0, True, (LOGPROB, LANGUAGE, FEW, LOOP)),
]
"""Each signal on both sides of its threshold, and every combination of reasons, in the order of `Reason`."""


@pytest.mark.parametrize("policy", ["auto", "primary", "fallback"])
@pytest.mark.parametrize("configured", [True, False])
@pytest.mark.parametrize(("words", "confidence", "probability", "looped", "reasons"), SIGNALS)
def test_signals_give_the_documented_decision(
    words: int,
    confidence: float | None,
    probability: float | None,
    looped: bool,
    reasons: tuple[Reason, ...],
    configured: bool,
    policy: Policy,
) -> None:
    signals = Signals(True, words, confidence, probability, looped)
    decision = decide(signals, Thresholds(), policy=policy, fallback_configured=configured)
    assert decision == Decision(bool(reasons) and policy == "auto" and configured, reasons)
    assert decision.confidence_below == bool(reasons)
    assert decide(replace(signals, speech=False), Thresholds(), policy=policy).reasons == ()


def test_table_covers_every_combination_of_reasons() -> None:
    assert len({reasons for *_, reasons in SIGNALS}) == 2 ** len(CONFIDENCE_REASONS)


@pytest.mark.parametrize("policy", ["auto", "primary"])
@pytest.mark.parametrize("configured", [True, False])
def test_failed_primary_escalates_if_the_policy_allows(policy: Policy, configured: bool) -> None:
    decision = decide(None, Thresholds(), policy=policy, fallback_configured=configured)
    assert decision.reasons == (Reason.PRIMARY_ERROR,)
    assert decision.escalate == (policy == "auto" and configured)
    assert not decision.confidence_below


def test_requested_fallback_needs_no_signals() -> None:
    assert decide(None, Thresholds(), policy="fallback") == Decision(True, (Reason.REQUESTED,))


def test_threshold_of_one_escalates_confident_answers() -> None:
    assert decide(GOOD, Thresholds(conf_logprob=1.0)).reasons == (Reason.LOW_LOGPROB,)


def test_thresholds_of_zero_never_escalate() -> None:
    zero = Thresholds(conf_logprob=0.0, conf_langprob=0.0, min_words=0)
    assert decide(Signals(speech=True), zero) == Decision(False, ())


def test_forced_language_has_no_language_check() -> None:
    forced = Signals(speech=True, words=5, confidence=0.9, language_probability=None)
    assert decide(forced, Thresholds(conf_langprob=1.0)).reasons == ()


def test_silence_never_escalates() -> None:
    assert decide(Signals(speech=False), Thresholds(conf_logprob=1.0)) == Decision(False, ())


@pytest.mark.parametrize(
    ("confidence", "words", "chunks", "expected"),
    [
        (0.7, 12, 1, 0.7),
        (0.7, 48, 1, 0.49),
        (0.49, 3, 1, 0.7),
        (0.7, 24, 2, 0.7),
        (0.0, 12, 1, 0.0),
        (1.0, 400, 1, 1.0),
        (None, 0, 0, 0.0),
    ],
)
def test_combined_signal_depends_on_words_per_chunk(
    confidence: float | None, words: int, chunks: int, expected: float
) -> None:
    signals = Signals(speech=True, words=words, confidence=confidence, chunks=chunks)
    assert combined_confidence(signals) == pytest.approx(expected)


def test_combined_signal_stays_low_without_words() -> None:
    assert combined_confidence(Signals(speech=True, words=0, confidence=0.01)) < 0.55


def test_combined_signal_escalates_long_texts_first() -> None:
    long, short = (Signals(speech=True, words=words, confidence=0.6) for words in (40, 5))
    for signals in (long, short):
        assert decide(signals, Thresholds(signal="mean")).reasons == ()
    assert decide(long, Thresholds(signal="combined")).reasons == (Reason.LOW_LOGPROB,)
    assert decide(short, Thresholds(signal="combined")).reasons == ()


def test_confidence_below_covers_the_confidence_reasons() -> None:
    assert {reason for reason in Reason if Decision(True, (reason,)).confidence_below} == CONFIDENCE_REASONS


@pytest.mark.parametrize(
    ("primary", "fallback", "winner"),
    [
        (0.8, 0.7, "primary"),
        (0.7, 0.8, "fallback"),
        (0.7, 0.7, "fallback"),
        (None, 0.1, "fallback"),
        (0.9, None, "fallback"),
        (None, None, "fallback"),
    ],
)
def test_more_confident_answer_is_better_founded(primary: float | None, fallback: float | None, winner: str) -> None:
    assert better_founded(primary, fallback) == winner


def test_repetition_loop_is_never_better_founded() -> None:
    assert better_founded(0.3, 0.95, fallback_looped=True) == "primary"
    assert better_founded(None, 0.95, fallback_looped=True) == "fallback"
