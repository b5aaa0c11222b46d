"""Which texts are decoded again, and how much that may cost."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from stt_server.engine.acceptance import (
    REDECODED_SECONDS_PER_SECOND,
    TOKEN_SECONDS,
    RedecodingBudget,
    are_credible,
    evidence_of,
    is_loop,
    needs_resampling,
    plausibility,
    rejection_reason,
)
from stt_server.engine.generation import Decoded
from stt_server.engine.tokens import TimedTokens
from stt_server.engine.types import Samples

NINES = " Nine, nine, nine, nine, nine."
FIVE_BURSTS = tuple((index * 1.1, index * 1.1 + 0.6) for index in range(5))


@dataclass
class Clip:
    speech: tuple[tuple[float, float], ...] = FIVE_BURSTS
    speech_certain: bool = True
    samples: Samples = field(default_factory=lambda: np.zeros(5 * 16000, dtype=np.float32))
    start: float = 0.0


def decoded(text: str, end: float = 5.0, logprob: float = -0.2) -> Decoded:
    return Decoded([TimedTokens(0.0, end, (1,))], [[logprob]], [[]], 0.1, text)


def test_repetition_in_as_many_bursts_is_accepted() -> None:
    assert rejection_reason(decoded(NINES), Clip()) is None
    assert not needs_resampling(decoded(NINES), Clip())
    assert not evidence_of(Clip(), NINES, 0.4, [-0.2]).looped


def test_loop_is_rejected() -> None:
    assert rejection_reason(decoded(" Nine." * 70), Clip()) == "loop"
    assert needs_resampling(decoded(" Nine." * 70), Clip())
    assert plausibility(decoded(" Nine." * 70), Clip()) < plausibility(decoded(NINES), Clip())
    assert evidence_of(Clip(), " Nine." * 70, 0.4, [-0.2]).looped


def test_repetition_over_uncertain_speech_is_a_loop() -> None:
    assert is_loop(NINES, Clip(speech_certain=False))


def test_repetition_that_ends_before_the_speech_is_decoded_again() -> None:
    assert rejection_reason(decoded(NINES, end=3.0), Clip()) == "early_stop"


def test_texts_of_stretches_are_credible_together() -> None:
    assert are_credible([decoded(" Nine."), decoded(" mine", logprob=-1.5)])
    assert not are_credible([decoded(" Nine."), decoded(" Nine, nine, nine, nine, nine, nine.")])
    assert not are_credible([decoded(" line", logprob=-1.6), decoded(" Hain", logprob=-1.4)])
    assert not are_credible([])


def test_decoding_again_is_bounded_by_the_seconds_of_audio() -> None:
    budget = RedecodingBudget(3.0, 8)
    taken = sum(window for window in (8, 30, 30, 30, 8, 8, 8) if budget.take(window))
    assert taken <= 3.0 * REDECODED_SECONDS_PER_SECOND


def test_tokens_are_charged() -> None:
    budget = RedecodingBudget(3.0, 8)
    assert budget.take(20)
    loop = Decoded([TimedTokens(0.0, 5.0, (1,) * 40)], [[-0.2] * 40], [[]], 0.1, " nine" * 40)
    assert budget.charge(loop) is loop
    assert budget.spent == 20 + 40 * TOKEN_SECONDS
    assert not budget.take(1)


def test_one_window_is_always_allowed() -> None:
    budget = RedecodingBudget(0.1, 8)
    assert budget.take(8)
    assert not budget.take(8)
