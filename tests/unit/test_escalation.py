"""Judging a recording of several chunks: which doubts are of the whole, and which of a chunk."""

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


def said(words: int, confidence: float, tokens: int | None = None, suppressed: str | None = None) -> Hypothesis:
    """A chunk's text of so many words, made of so many tokens of one probability."""
    text = " ".join(f"word{number}" for number in range(words))
    segment = Segment(0.0, 1.0, text, math.log(confidence), 0.0, 1.0)
    logprobs = (math.log(confidence),) * (words if tokens is None else tokens)
    return Hypothesis((segment,), "en", 0.9, logprobs, False, suppressed)


def heard(*hypotheses: Hypothesis) -> Recognition:
    chunk = Chunk(np.zeros(16000, dtype=np.float32), 0.0, ((0.0, 1.0),))
    return Recognition((chunk,) * len(hypotheses), hypotheses)


def decision(of: Recognition, thresholds: Thresholds) -> Decision:
    return judge(of, thresholds, "auto", fallback_configured=True)


def test_the_length_of_a_recording_is_no_doubt_of_its_words() -> None:
    chunks = [said(12, 0.7)] * 10
    assert (
        combined_confidence(signals_of(chunks))
        == pytest.approx(combined_confidence(signals_of(chunks[:1])))
        == pytest.approx(0.7)
    )
    assert decision(heard(*chunks), COMBINED) == Decision(False, ())


def test_a_low_whole_of_chunks_that_are_each_sure_enough_is_kept() -> None:
    chunks = [said(24, 0.67), said(1, 0.14, tokens=24)]
    assert combined_confidence(signals_of(chunks)) < COMBINED.conf_logprob
    assert all(combined_confidence(signals_of([chunk])) >= COMBINED.conf_logprob for chunk in chunks)
    assert decision(heard(*chunks), COMBINED) == Decision(False, ())


def test_a_weak_chunk_is_named_though_the_whole_is_sure() -> None:
    recording = heard(said(20, 0.9), said(5, 0.3), said(20, 0.9))
    found = decision(recording, Thresholds())
    assert found == Decision(True, (Reason.LOW_LOGPROB,))
    assert list(weak_chunks(recording, found, Thresholds())) == [1]


def test_a_dropped_text_is_no_doubt_and_no_words() -> None:
    recording = heard(said(20, 0.9), said(5, 0.3, suppressed="no_speech"))
    assert signals_of(recording.hypotheses).words == 20
    assert decision(recording, Thresholds()) == Decision(False, ())
