"""Judging recordings of several chunks: which reasons concern one chunk, and which the whole."""

from __future__ import annotations

import math

import numpy as np
import pytest

from stt_server.audio import Chunk
from stt_server.cascade.escalation import judge, signals_of, weak_chunks
from stt_server.engine.types import Hypothesis, Segment
from stt_server.request import Recognition
from stt_server.routing import Decision, Reason, Thresholds, combined_confidence

COMBINED = Thresholds(signal="combined")


def hypothesis(words: int, confidence: float, tokens: int | None = None, suppressed: str | None = None) -> Hypothesis:
    """A chunk's text whose tokens, one for each word by default, have all the same probability."""
    text = " ".join(f"word{number}" for number in range(words))
    segment = Segment(0.0, 1.0, text, math.log(confidence), 0.0, 1.0)
    logprobs = (math.log(confidence),) * (words if tokens is None else tokens)
    return Hypothesis((segment,), "en", 0.9, logprobs, False, suppressed)


def recognition(*hypotheses: Hypothesis) -> Recognition:
    chunk = Chunk(np.zeros(16000, dtype=np.float32), 0.0, ((0.0, 1.0),))
    return Recognition((chunk,) * len(hypotheses), hypotheses)


def decision(recognized: Recognition, thresholds: Thresholds) -> Decision:
    return judge(recognized, thresholds, "auto", fallback_configured=True)


def test_length_of_a_recording_does_not_lower_confidence() -> None:
    chunks = [hypothesis(12, 0.7)] * 10
    assert (
        combined_confidence(signals_of(chunks))
        == pytest.approx(combined_confidence(signals_of(chunks[:1])))
        == pytest.approx(0.7)
    )
    assert decision(recognition(*chunks), COMBINED) == Decision(False, ())


def test_low_mean_over_confident_chunks_is_kept() -> None:
    chunks = [hypothesis(24, 0.67), hypothesis(1, 0.14, tokens=24)]
    assert combined_confidence(signals_of(chunks)) < COMBINED.conf_logprob
    assert all(combined_confidence(signals_of([chunk])) >= COMBINED.conf_logprob for chunk in chunks)
    assert decision(recognition(*chunks), COMBINED) == Decision(False, ())


def test_weak_chunk_is_found_in_a_confident_recording() -> None:
    recording = recognition(hypothesis(20, 0.9), hypothesis(5, 0.3), hypothesis(20, 0.9))
    found = decision(recording, Thresholds())
    assert found == Decision(True, (Reason.LOW_LOGPROB,))
    assert list(weak_chunks(recording, found, Thresholds())) == [1]


def test_suppressed_text_counts_as_silence() -> None:
    recording = recognition(hypothesis(20, 0.9), hypothesis(5, 0.3, suppressed="no_speech"))
    assert signals_of(recording.hypotheses).words == 20
    assert decision(recording, Thresholds()) == Decision(False, ())
