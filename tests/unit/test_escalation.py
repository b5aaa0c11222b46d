"""Judging recordings of several chunks, and calling the fallback within deadlines."""

from __future__ import annotations

import math

import numpy as np
import pytest

from stt_server.audio import AudioFormat, Chunk
from stt_server.cascade.escalation import Escalation
from stt_server.cascade.fallback import FallbackError
from stt_server.cascade.judging import chunk_doubts, judge, signals_of, whole_doubts
from stt_server.cascade.settings import CascadeSettings
from stt_server.engine.types import DecodeOptions, Hypothesis, Segment
from stt_server.errors import DeadlineExceeded
from stt_server.request import Answer, Recognition, Request, Upload
from stt_server.routing import Decision, Reason, Thresholds, combined_confidence
from tests.support.clock import ManualClock

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
    assert [bool(chunk_doubts(chunk, Thresholds())) for chunk in recording.hypotheses] == [False, True, False]
    assert whole_doubts(recording.hypotheses, Thresholds()) == []


def test_suppressed_text_counts_as_silence() -> None:
    recording = recognition(hypothesis(20, 0.9), hypothesis(5, 0.3, suppressed="no_speech"))
    assert signals_of(recording.hypotheses).words == 20
    assert decision(recording, Thresholds()) == Decision(False, ())


class RecordingFallback:
    """Answers at once, and records each request and its timeout."""

    def __init__(self, error: str = "") -> None:
        self.calls: list[tuple[Request, float]] = []
        self._error = error

    async def transcribe(self, request: Request, timeout_s: float) -> Answer:
        self.calls.append((request, timeout_s))
        if self._error:
            raise FallbackError(self._error)
        return Answer("medium", (Segment(0.5, 1.0, " text", -0.1, 0.0, 1.0),), "text", "en", None, 0.9, ("medium",))


def upload_request(deadline: float | None = None) -> Request:
    return Request(Upload(b"audio", AudioFormat()), DecodeOptions(), "id", deadline=deadline)


FAIL = CascadeSettings(fallback_timeout_s=10.0)
DEGRADE = CascadeSettings(fallback_timeout_s=10.0, fallback_on_error="degrade")


@pytest.mark.parametrize(
    ("settings", "remaining", "unrecognized", "timeout"),
    [
        (FAIL, None, False, 10.0),
        (FAIL, 60.0, False, 10.0),
        (FAIL, 4.0, False, 4.0),
        (FAIL, 4.0, True, 4.0),
        (DEGRADE, 60.0, True, 10.0),
        (DEGRADE, 4.0, False, 3.9),
        (DEGRADE, 4.1, True, 2.0),
    ],
)
async def test_fallback_timeout_respects_the_callers_deadline(
    settings: CascadeSettings, remaining: float | None, unrecognized: bool, timeout: float
) -> None:
    clock, fallback = ManualClock(), RecordingFallback()
    escalation = Escalation(fallback, settings, clock)
    request = upload_request(None if remaining is None else clock() + remaining)
    await escalation.whole(request, unrecognized=unrecognized)
    ((_, given),) = fallback.calls
    assert given == pytest.approx(timeout)


@pytest.mark.parametrize(
    ("settings", "remaining", "raised"),
    [(FAIL, 4.0, DeadlineExceeded), (FAIL, 60.0, FallbackError), (DEGRADE, 4.0, FallbackError)],
)
async def test_timeout_is_blamed_on_the_callers_deadline_if_shorter(
    settings: CascadeSettings, remaining: float, raised: type[Exception]
) -> None:
    clock = ManualClock()
    escalation = Escalation(RecordingFallback("deadline_exceeded"), settings, clock)
    with pytest.raises(raised):
        await escalation.whole(upload_request(clock() + remaining), unrecognized=False)


async def test_no_call_is_made_without_time_left() -> None:
    clock, fallback = ManualClock(), RecordingFallback()
    with pytest.raises(FallbackError, match="deadline_exceeded"):
        await Escalation(fallback, DEGRADE, clock).whole(upload_request(clock() + 0.05), unrecognized=False)
    assert fallback.calls == []


async def test_escalated_chunk_has_the_recordings_language_and_times() -> None:
    fallback = RecordingFallback()
    chunk = Chunk(np.full(16000, 0.5, dtype=np.float32), 20.0, ((0.0, 1.0),))
    answer = await Escalation(fallback, FAIL).chunk(upload_request(), chunk, "de")
    ((request, _),) = fallback.calls
    assert request.options.language == "de"
    assert request.upload.format == AudioFormat("linear16", 16000, 1)
    assert np.frombuffer(request.upload.data, "<i2").tolist() == [16383] * 16000
    assert (answer.segments[0].start, answer.segments[0].end) == (20.5, 21.0)
