"""The routing decision, over every combination of what can go into it."""

from __future__ import annotations

import itertools

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
LIMITS = Thresholds()

CONFIDENCES = (None, 0.0, 0.5499, 0.55, 1.0)
PROBABILITIES = (None, 0.0, 0.6999, 0.70, 1.0)
WORDS = (0, 2, 3, 10)
EVERY_SIGNAL = [
    Signals(speech, words, confidence, probability, looped)
    for speech, words, confidence, probability, looped in itertools.product(
        (True, False), WORDS, CONFIDENCES, PROBABILITIES, (True, False)
    )
]


def expected_doubts(signals: Signals) -> set[Reason]:
    if not signals.speech:
        return set()
    checks = {
        Reason.LOW_LOGPROB: signals.confidence is None or signals.confidence < 0.55,
        Reason.LOW_LANGUAGE_PROBABILITY: (
            signals.language_probability is not None and signals.language_probability < 0.70
        ),
        Reason.FEW_WORDS: signals.words < 3,
        Reason.REPETITION: signals.looped,
    }
    return {reason for reason, doubtful in checks.items() if doubtful}


@pytest.mark.parametrize("policy", ["auto", "primary", "fallback"])
@pytest.mark.parametrize("configured", [True, False])
def test_every_combination_of_signals_gives_the_documented_decision(policy: Policy, configured: bool) -> None:
    for signals in EVERY_SIGNAL:
        decision = decide(signals, LIMITS, policy=policy, fallback_configured=configured)
        doubts = expected_doubts(signals)
        assert set(decision.reasons) == doubts, signals
        assert decision.escalate == (bool(doubts) and policy == "auto" and configured), signals
        assert decision.confidence_below == bool(doubts), signals


def test_reasons_come_in_the_contracts_order_and_once() -> None:
    order = list(Reason)
    for signals in EVERY_SIGNAL:
        positions = [order.index(reason) for reason in decide(signals, LIMITS).reasons]
        assert positions == sorted(set(positions))


@pytest.mark.parametrize("policy", ["auto", "primary"])
@pytest.mark.parametrize("configured", [True, False])
def test_a_failed_primary_escalates_unless_the_request_forbids_it(policy: Policy, configured: bool) -> None:
    decision = decide(None, LIMITS, policy=policy, fallback_configured=configured)
    assert decision.reasons == (Reason.PRIMARY_ERROR,)
    assert decision.escalate == (policy == "auto" and configured)
    assert not decision.confidence_below


def test_a_requested_fallback_is_asked_without_a_look_at_confidence() -> None:
    assert decide(None, LIMITS, policy="fallback") == Decision(True, (Reason.REQUESTED,))


def test_a_threshold_of_one_sends_every_sure_answer_to_the_fallback() -> None:
    assert decide(GOOD, Thresholds(conf_logprob=1.0)).reasons == (Reason.LOW_LOGPROB,)


def test_thresholds_of_zero_keep_whatever_was_heard() -> None:
    nothing = Thresholds(conf_logprob=0.0, conf_langprob=0.0, min_words=0)
    assert decide(Signals(speech=True), nothing) == Decision(False, ())


def test_a_forced_language_has_no_language_check() -> None:
    forced = Signals(speech=True, words=5, confidence=0.9, language_probability=None)
    assert decide(forced, Thresholds(conf_langprob=1.0)).reasons == ()


def test_silence_is_never_doubted() -> None:
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
def test_the_combined_signal_weighs_unsureness_by_the_length_of_a_chunks_text(
    confidence: float | None, words: int, chunks: int, expected: float
) -> None:
    signals = Signals(speech=True, words=words, confidence=confidence, chunks=chunks)
    assert combined_confidence(signals) == pytest.approx(expected)


def test_a_text_without_words_is_not_made_sure_by_the_combined_signal() -> None:
    assert combined_confidence(Signals(speech=True, words=0, confidence=0.01)) < 0.55


def test_the_combined_signal_sends_a_long_unsure_text_sooner_than_a_short_one() -> None:
    long, short = (Signals(speech=True, words=words, confidence=0.6) for words in (40, 5))
    for signals in (long, short):
        assert decide(signals, Thresholds(signal="mean")).reasons == ()
    assert decide(long, Thresholds(signal="combined")).reasons == (Reason.LOW_LOGPROB,)
    assert decide(short, Thresholds(signal="combined")).reasons == ()


def test_confidence_is_below_only_for_checks_of_the_answer() -> None:
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
def test_the_better_founded_answer_is_the_surer_one(primary: float | None, fallback: float | None, winner: str) -> None:
    assert better_founded(primary, fallback) == winner


def test_a_fallback_that_repeats_itself_is_never_the_better_founded() -> None:
    assert better_founded(0.3, 0.95, fallback_looped=True) == "primary"
    assert better_founded(None, 0.95, fallback_looped=True) == "fallback"
