"""Recordings of several chunks: only the weak ones go to the fallback, and the result says whose text is where."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from stt_server.app import Service
from stt_server.errors import EngineError
from stt_server.testing.paths import SPEECH
from stt_server.testing.scripted_model import Script, ScriptedModel
from tests.support.services import failure, running, stub_of, transcribe
from tests.support.speech import samples_of, silence, wav_of

SURE, UNSURE = Script(text=" the small text is sure"), Script(text=" the small text is weak", confidence=0.2)
MEDIUM = Script(text=" the medium text instead", confidence=0.7)


def recording(chunks: int) -> bytes:
    """Speech, and a pause too long to be carried along, so many times."""
    return wav_of(np.concatenate([samples_of(SPEECH), silence(5.0)] * chunks))


@pytest.fixture
def small() -> ScriptedModel:
    return ScriptedModel(by_start=lambda start: UNSURE if 5 < start < 10 else SURE)


@pytest.fixture
def medium() -> ScriptedModel:
    return ScriptedModel(MEDIUM, name="scripted-medium")


@contextlib.asynccontextmanager
async def pair(
    folder: Path, small: ScriptedModel, medium: ScriptedModel, **keys: Any
) -> AsyncIterator[tuple[Any, Service, Service]]:
    async with running(folder, "fallback", medium, **keys.pop("fallback", {})) as fallback:
        keys["FALLBACK_URL"] = f"grpc://127.0.0.1:{fallback.grpc_port}"
        async with running(folder, "primary", small, **keys) as primary, stub_of(primary) as stub:
            yield stub, primary, fallback


async def test_only_the_weak_chunk_costs_the_larger_model(
    tmp_path: Path, small: ScriptedModel, medium: ScriptedModel
) -> None:
    async with pair(tmp_path, small, medium) as (stub, primary, _):
        response, trailers = await transcribe(stub, recording(3), word_timestamps=True)
        counts = primary._snapshot_now()["fallback"]
    assert response.text == "the small text is sure the medium text instead the small text is sure"
    assert [s.model for s in response.segments] == ["scripted-small", "scripted-medium", "scripted-small"]
    starts = [s.start.ToTimedelta().total_seconds() for s in response.segments]
    assert starts == sorted(starts)
    assert starts[1] == pytest.approx(7.9, abs=0.5)
    assert response.audio_duration.ToTimedelta().total_seconds() == pytest.approx(3 * 7.9, abs=0.1)
    assert (trailers["x-fallback-used"], trailers["x-route-reason"]) == ("true", "low_logprob")
    assert trailers["x-final-model"] == "scripted-small", "most of the text is its"
    assert response.routing.fallback_confidence == pytest.approx(0.7)
    assert len(medium.seen) == 1
    assert medium.seen[0].language == "en", "the recording's language is known by then"
    assert medium.seen[0].word_timestamps
    assert counts == {"used": 1, "skipped": 0, "failed": 0}


async def test_when_most_chunks_are_weak_the_final_model_is_the_fallbacks(
    tmp_path: Path, small: ScriptedModel, medium: ScriptedModel
) -> None:
    small.by_start = lambda start: SURE if start < 5 else UNSURE
    async with pair(tmp_path, small, medium) as (stub, _, __):
        response, trailers = await transcribe(stub, recording(3))
    assert trailers["x-final-model"] == "scripted-medium"
    assert [s.model for s in response.segments] == ["scripted-small", "scripted-medium", "scripted-medium"]


async def test_a_recording_that_is_weak_all_through_goes_as_it_came(
    tmp_path: Path, small: ScriptedModel, medium: ScriptedModel
) -> None:
    small.by_start = lambda _: UNSURE
    async with pair(tmp_path, small, medium) as (stub, _, __):
        response, trailers = await transcribe(stub, recording(2))
    assert response.text == "the medium text instead the medium text instead"
    assert trailers["x-final-model"] == "scripted-medium"
    assert medium.seen[0].language is None, "it is detected again"


async def test_a_doubt_of_the_language_is_of_the_whole_recording(
    tmp_path: Path, small: ScriptedModel, medium: ScriptedModel
) -> None:
    small.by_start = lambda _: Script(text=" quite sure of these words", language_probability=0.2)
    async with pair(tmp_path, small, medium) as (stub, _, __):
        response, trailers = await transcribe(stub, recording(2))
    assert response.text == "the medium text instead the medium text instead"
    assert trailers["x-route-reason"] == "low_language_probability"


async def test_few_words_in_one_chunk_of_many_words_are_no_doubt(
    tmp_path: Path, small: ScriptedModel, medium: ScriptedModel
) -> None:
    small.by_start = lambda start: Script(text=" yes") if start > 5 else SURE
    async with pair(tmp_path, small, medium) as (stub, _, __):
        _, trailers = await transcribe(stub, recording(2))
    assert (trailers["x-route-reason"], medium.seen) == ("none", [])


async def test_weak_chunks_are_asked_for_side_by_side_but_bounded(
    tmp_path: Path, small: ScriptedModel, medium: ScriptedModel
) -> None:
    small.by_start = lambda start: SURE if start < 5 else UNSURE
    keys = {"fallback": {"MAX_CONCURRENCY": 16, "MAX_BATCH_SIZE": 1}}
    async with pair(tmp_path, small, medium, **keys) as (stub, _, __):
        await transcribe(stub, recording(8))
    assert len(medium.seen) == 7
    assert medium.most_running <= 4


@pytest.mark.parametrize("on_error", ["fail", "degrade"])
async def test_a_fallback_that_is_away_fails_or_leaves_the_primarys_text(
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
        assert primary._snapshot_now()["fallback"]["failed"] == 1
    assert trailers["x-fallback-error"] == "unavailable"


async def test_degrade_keeps_what_the_fallback_did_answer(
    tmp_path: Path, small: ScriptedModel, medium: ScriptedModel
) -> None:
    small.by_start = lambda start: SURE if start < 5 else UNSURE
    medium.script = Script(text=MEDIUM.text, error=EngineError("the model failed"), errors_left=1)
    keys = {"FALLBACK_ON_ERROR": "degrade", "fallback": {"MAX_CONCURRENCY": 1, "MAX_BATCH_SIZE": 1}}
    async with pair(tmp_path, small, medium, **keys) as (stub, _, __):
        response, trailers = await transcribe(stub, recording(3))
    assert response.text.count("the small text") == 2
    assert response.text.count("the medium text") == 1
    assert trailers["x-fallback-used"] == "true"
    assert trailers["x-fallback-error"] == "internal"


async def test_the_surer_text_is_chosen_chunk_by_chunk(
    tmp_path: Path, small: ScriptedModel, medium: ScriptedModel
) -> None:
    small.by_start = lambda start: SURE if start < 5 else UNSURE
    medium.script = Script(text=" the medium text guesses", confidence=0.1)
    async with pair(tmp_path, small, medium, FINAL_CHOICE="best") as (stub, _, __):
        response, trailers = await transcribe(stub, recording(2))
    assert response.text == "the small text is sure the small text is weak"
    assert trailers["x-fallback-used"] == "true"
    assert trailers["x-final-model"] == "scripted-small"
