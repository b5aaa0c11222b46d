"""Recordings of several chunks: only weak chunks are escalated, and each segment names its model."""

from __future__ import annotations

from pathlib import Path

import grpc
import numpy as np
import pytest

from stt_server.errors import EngineError
from stt_server.testing.paths import SPEECH
from stt_server.testing.scripted_model import Script, ScriptedModel
from tests.support.pair import pair
from tests.support.services import failure, transcribe
from tests.support.speech import samples_of, silence, wav_of

CONFIDENT, WEAK = Script(text=" the small text is sure"), Script(text=" the small text is weak", confidence=0.2)
MEDIUM = Script(text=" the medium text instead", confidence=0.7)


def recording(chunks: int) -> bytes:
    """A recording of so many chunks: speech, each followed by a pause too long to be part of a chunk."""
    return wav_of(np.concatenate([samples_of(SPEECH), silence(5.0)] * chunks))


@pytest.fixture
def small() -> ScriptedModel:
    return ScriptedModel(by_start=lambda start: WEAK if 5 < start < 10 else CONFIDENT)


@pytest.fixture
def medium() -> ScriptedModel:
    return ScriptedModel(MEDIUM, name="scripted-medium")


async def test_only_the_weak_chunk_is_escalated(tmp_path: Path, small: ScriptedModel, medium: ScriptedModel) -> None:
    async with pair(tmp_path, small, medium) as (stub, primary, _):
        response, trailers = await transcribe(stub, recording(3), word_timestamps=True)
        counts = primary.instruments.snapshot()["fallback"]
    assert response.text == "the small text is sure the medium text instead the small text is sure"
    assert [s.model for s in response.segments] == ["scripted-small", "scripted-medium", "scripted-small"]
    starts = [s.start.ToTimedelta().total_seconds() for s in response.segments]
    assert starts == sorted(starts)
    assert starts[1] == pytest.approx(7.9, abs=0.5)
    assert response.audio_duration.ToTimedelta().total_seconds() == pytest.approx(3 * 7.9, abs=0.1)
    assert (trailers["x-fallback-used"], trailers["x-route-reason"]) == ("true", "low_logprob")
    assert trailers["x-final-model"] == "scripted-small", "most of the audio is its"
    assert response.routing.fallback_confidence == pytest.approx(0.7)
    assert len(medium.seen) == 1
    assert medium.seen[0].language == "en", "the recording's language is forced on the chunk"
    assert medium.seen[0].word_timestamps
    assert counts == {"used": 1, "skipped": 0, "failed": 0}


async def test_a_chunk_in_another_language_is_escalated_in_it(
    tmp_path: Path, small: ScriptedModel, medium: ScriptedModel
) -> None:
    german = Script(text=" der Text ist unsicher", language="de", confidence=0.3)
    small.by_start = lambda start: german if 5 < start < 10 else CONFIDENT
    async with pair(tmp_path, small, medium) as (stub, _, __):
        response, _trailers = await transcribe(stub, recording(3))
    assert [options.language for options in medium.seen] == ["de"]
    assert [segment.language for segment in response.segments] == ["en", "de", "en"]
    assert response.language == "en", "most of the speech is English"
    assert {job.expected_language for job in small.jobs} == {"", "en"}


async def test_a_recording_that_begins_in_another_language_names_both(
    tmp_path: Path, small: ScriptedModel, medium: ScriptedModel
) -> None:
    german = Script(text=" der deutsche Text ist sicher", language="de")
    small.by_start = lambda start: CONFIDENT if start < 5 else german
    async with pair(tmp_path, small, medium) as (stub, _, __):
        response, _trailers = await transcribe(stub, recording(3))
    assert response.language == "de"
    assert [segment.language for segment in response.segments] == ["en", "de", "de"]


async def test_a_given_language_is_not_detected_in_any_chunk(
    tmp_path: Path, small: ScriptedModel, medium: ScriptedModel
) -> None:
    async with pair(tmp_path, small, medium) as (stub, _, __):
        await transcribe(stub, recording(2), language="de")
    assert [(job.options.language, job.may_change_language) for job in small.jobs] == [("de", False)] * 2


async def test_final_model_is_that_of_most_of_the_audio(
    tmp_path: Path, small: ScriptedModel, medium: ScriptedModel
) -> None:
    small.by_start = lambda start: CONFIDENT if start < 5 else WEAK
    async with pair(tmp_path, small, medium) as (stub, _, __):
        response, trailers = await transcribe(stub, recording(3))
    assert trailers["x-final-model"] == "scripted-medium"
    assert [s.model for s in response.segments] == ["scripted-small", "scripted-medium", "scripted-medium"]


async def test_recording_of_weak_chunks_is_escalated_whole(
    tmp_path: Path, small: ScriptedModel, medium: ScriptedModel
) -> None:
    small.by_start = lambda _: WEAK
    async with pair(tmp_path, small, medium) as (stub, _, __):
        response, trailers = await transcribe(stub, recording(2))
    assert response.text == "the medium text instead the medium text instead"
    assert trailers["x-final-model"] == "scripted-medium"
    assert medium.seen[0].language is None, "the fallback detects the language itself"


async def test_low_language_probability_escalates_the_whole(
    tmp_path: Path, small: ScriptedModel, medium: ScriptedModel
) -> None:
    small.by_start = lambda _: Script(text=" quite sure of these words", language_probability=0.2)
    async with pair(tmp_path, small, medium) as (stub, _, __):
        response, trailers = await transcribe(stub, recording(2))
    assert response.text == "the medium text instead the medium text instead"
    assert trailers["x-route-reason"] == "low_language_probability"


async def test_few_words_in_one_chunk_do_not_escalate(
    tmp_path: Path, small: ScriptedModel, medium: ScriptedModel
) -> None:
    small.by_start = lambda start: Script(text=" yes") if start > 5 else CONFIDENT
    async with pair(tmp_path, small, medium) as (stub, _, __):
        _, trailers = await transcribe(stub, recording(2))
    assert (trailers["x-route-reason"], medium.seen) == ("none", [])


async def test_escalated_chunks_run_concurrently_up_to_a_limit(
    tmp_path: Path, small: ScriptedModel, medium: ScriptedModel
) -> None:
    small.by_start = lambda start: CONFIDENT if start < 5 else WEAK
    fallback_keys = {"MAX_CONCURRENCY": 16, "MAX_BATCH_SIZE": 1}
    async with pair(tmp_path, small, medium, fallback_keys=fallback_keys) as (stub, _, __):
        await transcribe(stub, recording(8))
    assert len(medium.seen) == 7
    assert medium.most_running <= 4


@pytest.mark.parametrize("on_error", ["fail", "degrade"])
async def test_unavailable_fallback_fails_or_degrades(
    tmp_path: Path, small: ScriptedModel, medium: ScriptedModel, on_error: str
) -> None:
    async with pair(tmp_path, small, medium, FALLBACK_ON_ERROR=on_error) as (stub, primary, fallback):
        await fallback.stop()
        if on_error == "fail":
            code, trailers, _ = await failure(stub, recording(3))
            assert (code, trailers["x-error-type"]) == (grpc.StatusCode.UNAVAILABLE, "fallback_failed")
        else:
            response, trailers = await transcribe(stub, recording(3))
            assert response.text.count("the small text") == 3
            assert trailers["x-fallback-used"] == "false"
        assert primary.instruments.snapshot()["fallback"]["failed"] == 1
    assert trailers["x-fallback-error"] == "unavailable"


async def test_degrade_keeps_the_chunks_the_fallback_answered(
    tmp_path: Path, small: ScriptedModel, medium: ScriptedModel
) -> None:
    small.by_start = lambda start: CONFIDENT if start < 5 else WEAK
    medium.script = Script(text=MEDIUM.text, error=EngineError("the model failed"), errors_left=1)
    fallback_keys = {"MAX_CONCURRENCY": 1, "MAX_BATCH_SIZE": 1}
    degrading = pair(tmp_path, small, medium, fallback_keys=fallback_keys, FALLBACK_ON_ERROR="degrade")
    async with degrading as (stub, _, __):
        response, trailers = await transcribe(stub, recording(3))
    assert response.text.count("the small text") == 2
    assert response.text.count("the medium text") == 1
    assert trailers["x-fallback-used"] == "true"
    assert trailers["x-fallback-error"] == "internal"


async def test_final_choice_best_is_made_per_chunk(tmp_path: Path, small: ScriptedModel, medium: ScriptedModel) -> None:
    small.by_start = lambda start: CONFIDENT if start < 5 else WEAK
    medium.script = Script(text=" the medium text guesses", confidence=0.1)
    async with pair(tmp_path, small, medium, FINAL_CHOICE="best") as (stub, _, __):
        response, trailers = await transcribe(stub, recording(2))
    assert response.text == "the small text is sure the small text is weak"
    assert trailers["x-fallback-used"] == "true"
    assert trailers["x-final-model"] == "scripted-small"
