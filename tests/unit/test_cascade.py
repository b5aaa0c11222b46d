"""Settling whose answer a request gets, with a scripted fallback."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from stt_server.audio import AudioFormat, Chunk
from stt_server.cascade.cascade import SingleModelCascade, TwoModelCascade, settle
from stt_server.cascade.fallback import FallbackError
from stt_server.cascade.settings import CascadeSettings
from stt_server.engine.chunk_parts import part_of
from stt_server.engine.language_changes import joined
from stt_server.engine.types import DecodeOptions, Hypothesis, ModelInfo, Segment
from stt_server.errors import FallbackFailed, InvalidArgument, OutOfMemory
from stt_server.request import Answer, Recognition, Request, Upload
from stt_server.routing import Policy, Reason

MODEL = ModelInfo("small", "cpu", "int8", ("de", "en"))
DEGRADE = CascadeSettings(fallback_on_error="degrade")
FAILED = Recognition((), failure=OutOfMemory("the device is out of memory"))


def recognition(confidence: float) -> Recognition:
    """One chunk of five words."""
    segment = Segment(0.0, 1.0, " five words from the primary", math.log(confidence), 0.0, 1.0)
    chunk = Chunk(np.zeros(16000, dtype=np.float32), 0.0, ((0.0, 1.0),))
    return Recognition((chunk,), (Hypothesis((segment,), "en", 0.9, (math.log(confidence),) * 5, False),))


def request(policy: Policy = "auto") -> Request:
    return Request(Upload(b"audio", AudioFormat()), DecodeOptions(), "id", policy)


async def not_called() -> Recognition:
    raise AssertionError("the own model is not to run again")


class ScriptedFallback:
    def __init__(self, error: str = "", confidence: float | None = 0.8, text: str = "text from the fallback") -> None:
        self._error = error
        self._answer = Answer("medium", (), text, "en", None, confidence, ())

    async def transcribe(self, request: Request, timeout_s: float) -> Answer:
        if self._error:
            raise FallbackError(self._error)
        return self._answer


async def test_confident_answer_is_kept() -> None:
    wanted = request()
    transcript = await settle(
        TwoModelCascade(MODEL, CascadeSettings(), ScriptedFallback()), wanted, recognition(0.9), not_called
    )
    assert (transcript.answer.model, transcript.fallback_used) == ("small", False)
    assert transcript.primary_confidence == pytest.approx(0.9)
    assert (wanted.trace.fallback_result, wanted.trace.reasons) == ("skipped", ())


@pytest.mark.parametrize(("own", "reason"), [(recognition(0.2), Reason.LOW_LOGPROB), (FAILED, Reason.PRIMARY_ERROR)])
async def test_weak_or_failed_recognition_gets_the_fallbacks_answer(own: Recognition, reason: Reason) -> None:
    wanted = request()
    transcript = await settle(TwoModelCascade(MODEL, CascadeSettings(), ScriptedFallback()), wanted, own, not_called)
    assert (transcript.answer.model, transcript.fallback_used) == ("medium", True)
    assert transcript.fallback_confidence == 0.8
    assert (wanted.trace.fallback_result, wanted.trace.reasons) == ("used", (reason,))
    assert wanted.trace.fallback_infer is not None


def in_two_languages(english: float, german: float) -> Recognition:
    """One chunk of two seconds, English and then German, with the confidence of each."""
    chunk = Chunk(np.zeros(32000, dtype=np.float32), 10.0, ((0.0, 0.9), (1.1, 2.0)))
    parts = [
        (part_of(chunk, span), _spoken(10.0 + span[0], language, confidence))
        for span, language, confidence in (((0.0, 1.0), "en", english), ((1.0, 2.0), "de", german))
    ]
    return Recognition((chunk,), (joined(parts),))


def _spoken(start: float, language: str, confidence: float) -> Hypothesis:
    segment = Segment(start, start + 1.0, f" five words in {language} primary", math.log(confidence), 0.0, 1.0)
    return Hypothesis((segment,), language, 0.9, (math.log(confidence),) * 5, False)


class RecordingFallback(ScriptedFallback):
    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[float, str | None]] = []

    async def transcribe(self, request: Request, timeout_s: float) -> Answer:
        self.asked.append((request.start, request.options.language))
        segment = Segment(0.0, 0.9, " text from the fallback", -0.2, 0.0, 1.0)
        return replace(
            self._answer, language=request.options.language or "fr", segments=(segment,), segment_models=("medium",)
        )


async def test_only_the_weak_language_of_a_chunk_is_escalated_in_that_language() -> None:
    fallback = RecordingFallback()
    cascade = TwoModelCascade(MODEL, CascadeSettings(), fallback)
    transcript = await settle(cascade, request(), in_two_languages(0.9, 0.3), not_called)
    assert fallback.asked == [(11.0, "de")]
    assert transcript.answer.text == "five words in en primary text from the fallback"
    assert [(s.start, s.language) for s in transcript.answer.segments] == [(10.0, "en"), (11.0, "de")]
    assert transcript.fallback_confidence == pytest.approx(0.8)


async def test_a_chunk_weak_in_all_its_languages_is_escalated_in_each() -> None:
    fallback = RecordingFallback()
    cascade = TwoModelCascade(MODEL, CascadeSettings(), fallback)
    transcript = await settle(cascade, request(), in_two_languages(0.3, 0.3), not_called)
    assert sorted(fallback.asked) == [(10.0, "en"), (11.0, "de")]
    assert [segment.language for segment in transcript.answer.segments] == ["en", "de"]


async def test_final_choice_best_keeps_the_more_confident_answer() -> None:
    cascade = TwoModelCascade(MODEL, CascadeSettings(final_choice="best"), ScriptedFallback(confidence=0.1))
    transcript = await settle(cascade, request(), recognition(0.2), not_called)
    assert (transcript.answer.model, transcript.fallback_used) == ("small", True)


@pytest.mark.parametrize(("confidence", "text"), [(0.9, "Yes."), (0.3, "")])
async def test_empty_text_of_the_fallback_replaces_no_confident_one(confidence: float, text: str) -> None:
    own = recognition(confidence)
    word = replace(own.hypotheses[0].segments[0], text=" Yes.")  # few words
    own = replace(own, hypotheses=(replace(own.hypotheses[0], segments=(word,)),))
    cascade = TwoModelCascade(MODEL, CascadeSettings(), ScriptedFallback(confidence=None, text=""))
    transcript = await settle(cascade, request(), own, not_called)
    assert (transcript.answer.text, transcript.fallback_used) == (text, True)


async def test_failed_fallback_fails_the_request() -> None:
    wanted = request()
    cascade = TwoModelCascade(MODEL, CascadeSettings(), ScriptedFallback("unavailable"))
    with pytest.raises(FallbackFailed, match="unavailable"):
        await settle(cascade, wanted, recognition(0.2), not_called)
    assert (wanted.trace.fallback_result, wanted.trace.fallback_error) == ("failed", "unavailable")


async def test_degrade_returns_the_primarys_answer() -> None:
    cascade = TwoModelCascade(MODEL, DEGRADE, ScriptedFallback("circuit_open"))
    transcript = await settle(cascade, request(), recognition(0.2), not_called)
    assert (transcript.answer.model, transcript.fallback_error) == ("small", "circuit_open")


async def test_degrade_runs_a_skipped_model() -> None:
    async def recognize() -> Recognition:
        return recognition(0.6)

    cascade = TwoModelCascade(MODEL, DEGRADE, ScriptedFallback("unavailable"))
    assert cascade.skips_own_model("fallback")
    transcript = await settle(cascade, request("fallback"), None, recognize)
    assert transcript.answer.text == "five words from the primary"
    assert transcript.decision.reasons == (Reason.REQUESTED,)
    assert transcript.primary_confidence == pytest.approx(0.6)


async def test_degrade_raises_the_models_error_if_both_fail() -> None:
    cascade = TwoModelCascade(MODEL, DEGRADE, ScriptedFallback("unavailable"))
    with pytest.raises(OutOfMemory):
        await settle(cascade, request(), FAILED, not_called)


async def test_primary_without_a_fallback_returns_weak_answers_and_raises_errors() -> None:
    cascade = TwoModelCascade(MODEL, CascadeSettings(), None)
    transcript = await settle(cascade, request(), recognition(0.2), not_called)
    assert (transcript.answer.model, transcript.decision.confidence_below) == ("small", True)
    with pytest.raises(OutOfMemory):
        await settle(cascade, request(), FAILED, not_called)
    with pytest.raises(InvalidArgument, match="routing"):
        cascade.validate_policy("fallback")


async def test_single_model_cascade_never_escalates() -> None:
    cascade = SingleModelCascade(MODEL)
    cascade.validate_policy("fallback")
    assert not cascade.skips_own_model("fallback")
    wanted = request("fallback")
    transcript = await settle(cascade, wanted, recognition(0.1), not_called)
    assert (transcript.decision.reasons, wanted.trace.fallback_result) == ((), None)
    assert transcript.primary_confidence is None
    assert transcript.fallback_confidence == pytest.approx(0.1)
    with pytest.raises(OutOfMemory):
        await settle(cascade, wanted, FAILED, not_called)
