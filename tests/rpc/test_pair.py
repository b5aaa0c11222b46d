"""Primary and fallback together, over real sockets: who answers, and how the story is told."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from protos.stt.v1 import speech_pb2 as pb
from stt_server.app import Service
from stt_server.errors import EngineError, OutOfMemory
from stt_server.testing.scripted_model import Script, ScriptedModel
from tests.support.services import failure, running, speech, stub_of, transcribe


@pytest.fixture
def small() -> ScriptedModel:
    return ScriptedModel(Script(text=" the small text is here"))


@pytest.fixture
def medium() -> ScriptedModel:
    return ScriptedModel(Script(text=" the medium text is here", confidence=0.8), name="scripted-medium")


@contextlib.asynccontextmanager
async def pair(
    folder: Path, small: ScriptedModel, medium: ScriptedModel, **keys: object
) -> AsyncIterator[tuple[Any, Service, Service]]:
    """A stub of the primary, the primary, and the fallback behind it."""
    async with running(folder, "fallback", medium, MAX_UPLOAD_MB=keys.get("MAX_UPLOAD_MB", 16)) as fallback:
        keys.setdefault("FALLBACK_URL", f"grpc://127.0.0.1:{fallback.grpc_port}")
        async with running(folder, "primary", small, **keys) as primary, stub_of(primary) as stub:
            yield stub, primary, fallback


async def test_a_sure_answer_stays_on_the_primary(tmp_path: Path, small: ScriptedModel, medium: ScriptedModel) -> None:
    async with pair(tmp_path, small, medium) as (stub, primary, _):
        response, trailers = await transcribe(stub)
        assert response.text == "the small text is here"
        assert (trailers["x-fallback-used"], trailers["x-route-reason"]) == ("false", "none")
        assert 'stt_fallback_total{result="skipped"} 1.0' in primary._metrics.exposition()[0]
    assert medium.seen == []


@pytest.mark.parametrize(
    ("script", "reasons"),
    [
        (Script(confidence=0.2), "low_logprob"),
        (Script(language_probability=0.3), "low_language_probability"),
        (Script(text=" hello"), "few_words"),
        (Script(looped=True), "repetition"),
        (Script(text=""), "low_logprob,few_words"),
        (Script(error=EngineError("the model failed")), "primary_error"),
        (Script(error=OutOfMemory("the device is full")), "primary_error"),
        (Script(error=ZeroDivisionError("a bug")), "primary_error"),
    ],
)
async def test_each_doubt_sends_the_request_to_the_fallback(
    tmp_path: Path, small: ScriptedModel, medium: ScriptedModel, script: Script, reasons: str
) -> None:
    small.script = script
    async with pair(tmp_path, small, medium) as (stub, primary, _):
        response, trailers = await transcribe(stub)
        exposition = primary._metrics.exposition()[0]
    assert response.text == "the medium text is here"
    assert trailers["x-route-reason"] == reasons
    assert trailers["x-fallback-used"] == "true"
    assert trailers["x-final-model"] == response.routing.final_model == "scripted-medium"
    assert {segment.model for segment in response.segments} == {"scripted-medium"}
    assert float(trailers["x-fallback-infer-ms"]) > 0
    names = [pb.RouteReason.Name(reason) for reason in response.routing.reasons]
    assert names == [f"ROUTE_REASON_{reason.upper()}" for reason in reasons.split(",")]
    assert trailers["x-conf-below"] == str(response.routing.confidence_below).lower()
    assert response.routing.confidence_below == (reasons != "primary_error")
    assert response.routing.fallback_confidence == pytest.approx(0.8)
    assert 'stt_fallback_total{result="used"} 1.0' in exposition


async def test_an_invented_text_is_dropped_and_nobody_else_is_asked(
    tmp_path: Path, small: ScriptedModel, medium: ScriptedModel
) -> None:
    small.script = Script(text=" Thank you.", confidence=0.2, suppressed="no_speech")
    async with pair(tmp_path, small, medium) as (stub, primary, _):
        response, trailers = await transcribe(stub)
        exposition = primary._metrics.exposition()[0]
    assert (response.text, list(response.segments)) == ("", [])
    assert (trailers["x-route-reason"], trailers["x-conf-below"]) == ("none", "false")
    assert medium.seen == []
    assert 'stt_suppressed_texts_total{reason="no_speech"} 1.0' in exposition
    assert 'stt_suppressed_texts_total{reason="loop"} 0.0' in exposition


async def test_the_job_reaches_the_fallback_as_the_caller_gave_it(
    tmp_path: Path, small: ScriptedModel, medium: ScriptedModel
) -> None:
    small.script.confidence = 0.1
    async with pair(tmp_path, small, medium) as (stub, _, _):
        await transcribe(stub, language="fr", prompt="Le renard.", hotwords=["renard"], word_timestamps=True)
        await transcribe(stub, candidate_languages=["en", "de"])
    assert medium.seen[0] == small.seen[0]
    assert medium.seen[0].language == "fr"
    assert medium.seen[1].language is None, "a detected language is detected again"
    assert medium.seen[1].candidate_languages == ("en", "de")


async def test_a_request_can_choose_its_model(tmp_path: Path, small: ScriptedModel, medium: ScriptedModel) -> None:
    async with pair(tmp_path, small, medium) as (stub, _, _):
        response, trailers = await transcribe(stub, routing=pb.ROUTING_POLICY_FALLBACK_ONLY)
        assert response.text == "the medium text is here"
        assert trailers["x-route-reason"] == "requested"
        assert trailers["x-conf-below"] == "false"
        assert small.seen == []
        small.script.confidence = 0.1
        response, trailers = await transcribe(stub, routing=pb.ROUTING_POLICY_PRIMARY_ONLY)
        assert response.text == "the small text is here"
        assert (trailers["x-route-reason"], trailers["x-fallback-used"]) == ("low_logprob", "false")
        assert trailers["x-conf-below"] == "true"


async def test_the_slot_is_free_while_the_fallback_works(
    tmp_path: Path, small: ScriptedModel, medium: ScriptedModel
) -> None:
    small.script.confidence = 0.1
    medium.open.clear()
    async with pair(tmp_path, small, medium, MAX_CONCURRENCY=1, MAX_QUEUE=0) as (stub, _, _):
        unsure = asyncio.ensure_future(transcribe(stub))
        await asyncio.get_running_loop().run_in_executor(None, medium.entered.acquire)
        response, _ = await transcribe(stub, routing=pb.ROUTING_POLICY_PRIMARY_ONLY)
        assert response.text == "the small text is here"
        assert not unsure.done()
        medium.open.set()
        response, _ = await unsure
        assert response.text == "the medium text is here"


@pytest.mark.parametrize("on_error", ["fail", "degrade"])
async def test_a_stopped_fallback_fails_or_degrades_as_configured(
    tmp_path: Path, small: ScriptedModel, medium: ScriptedModel, on_error: str
) -> None:
    small.script.confidence = 0.1
    async with pair(tmp_path, small, medium, FALLBACK_ON_ERROR=on_error) as (stub, primary, fallback):
        await fallback.stop()
        if on_error == "fail":
            code, trailers, _ = await failure(stub)
            assert (code, trailers["x-error-type"]) == (grpc.StatusCode.UNAVAILABLE, "fallback_failed")
        else:
            response, trailers = await transcribe(stub)
            assert response.text == "the small text is here"
            assert response.routing.fallback_error == "unavailable"
            assert trailers["x-fallback-used"] == "false"
            assert trailers["x-final-model"] == "scripted-small"
        exposition = primary._metrics.exposition()[0]
    assert trailers["x-fallback-error"] == "unavailable"
    assert 'stt_fallback_total{result="failed"} 1.0' in exposition


async def test_degrade_asks_the_primary_when_a_wanted_fallback_is_away(
    tmp_path: Path, small: ScriptedModel, medium: ScriptedModel
) -> None:
    async with pair(tmp_path, small, medium, FALLBACK_ON_ERROR="degrade") as (stub, _, fallback):
        await fallback.stop()
        response, trailers = await transcribe(stub, routing=pb.ROUTING_POLICY_FALLBACK_ONLY)
    assert response.text == "the small text is here"
    assert trailers["x-route-reason"] == "requested"
    assert trailers["x-fallback-error"] == "unavailable"


async def test_degrade_has_nothing_to_give_when_both_fail(
    tmp_path: Path, small: ScriptedModel, medium: ScriptedModel
) -> None:
    small.script.error = OutOfMemory("the device is out of memory")
    async with pair(tmp_path, small, medium, FALLBACK_ON_ERROR="degrade") as (stub, _, fallback):
        await fallback.stop()
        code, trailers, _ = await failure(stub)
    assert (code, trailers["x-error-type"]) == (grpc.StatusCode.UNAVAILABLE, "out_of_memory")
    assert trailers["x-fallback-error"] == "unavailable"


@pytest.mark.parametrize("on_error", ["fail", "degrade"])
async def test_a_slow_fallback_is_given_up_at_its_timeout(
    tmp_path: Path, small: ScriptedModel, medium: ScriptedModel, on_error: str
) -> None:
    small.script.confidence = 0.1
    medium.open.clear()
    keys = {"FALLBACK_TIMEOUT_S": 0.3, "FALLBACK_ON_ERROR": on_error}
    async with pair(tmp_path, small, medium, **keys) as (stub, _, _):
        try:
            if on_error == "fail":
                _, trailers, _ = await failure(stub)
                assert trailers["x-error-type"] == "fallback_failed"
            else:
                response, trailers = await transcribe(stub)
                assert response.text == "the small text is here"
            assert trailers["x-fallback-error"] == "deadline_exceeded"
            assert 250 <= float(trailers["x-fallback-infer-ms"]) < 5000  # the fallback says so a little sooner
        finally:
            medium.open.set()


async def test_degrade_answers_before_the_callers_own_deadline(
    tmp_path: Path, small: ScriptedModel, medium: ScriptedModel
) -> None:
    small.script.confidence = 0.1
    medium.open.clear()
    async with pair(tmp_path, small, medium, FALLBACK_ON_ERROR="degrade") as (stub, _, _):
        try:
            response, trailers = await transcribe(stub, timeout=2.0)
        finally:
            medium.open.set()
    assert response.text == "the small text is here"
    assert trailers["x-fallback-error"] == "deadline_exceeded"


@pytest.mark.parametrize(
    ("keys", "fallback_keys", "expected"),
    [
        ({"FALLBACK_API_KEY": "not-the-key-of-the-hop"}, {"API_KEYS": "primary:the-key-of-the-hop"}, "unauthenticated"),
        ({}, {"RATE_LIMIT_RPS": 0.001, "RATE_LIMIT_BURST": 1}, "rate_limited"),
        ({}, {"MAX_UPLOAD_MB": 0.01}, "payload_too_large"),
        ({}, {"MAX_AUDIO_SECONDS": 1}, "audio_too_long"),
    ],
)
async def test_the_callers_are_told_why_the_fallback_refused(
    tmp_path: Path,
    small: ScriptedModel,
    medium: ScriptedModel,
    keys: dict[str, object],
    fallback_keys: dict[str, object],
    expected: str,
) -> None:
    small.script.confidence = 0.1
    async with running(tmp_path, "fallback", medium, **fallback_keys) as fallback:
        url = f"grpc://127.0.0.1:{fallback.grpc_port}"
        async with running(tmp_path, "primary", small, FALLBACK_URL=url, **keys) as primary, stub_of(primary) as stub:
            if expected == "rate_limited":
                await transcribe(stub)
            code, trailers, _ = await failure(stub)
    assert (code, trailers["x-error-type"]) == (grpc.StatusCode.UNAVAILABLE, "fallback_failed")
    assert trailers["x-fallback-error"] == expected


async def test_the_fallback_takes_the_primarys_key(tmp_path: Path, small: ScriptedModel, medium: ScriptedModel) -> None:
    small.script.confidence = 0.1
    async with running(tmp_path, "fallback", medium, API_KEYS="primary:the-key-of-the-hop") as fallback:
        keys = {"FALLBACK_URL": f"127.0.0.1:{fallback.grpc_port}", "FALLBACK_API_KEY": "the-key-of-the-hop"}
        async with running(tmp_path, "primary", small, **keys) as primary, stub_of(primary) as stub:
            response, _ = await transcribe(stub)
    assert response.text == "the medium text is here"


async def test_sixteen_mib_pass_through_both_and_a_byte_more_does_not(
    tmp_path: Path, small: ScriptedModel, medium: ScriptedModel
) -> None:
    small.script.confidence = 0.1
    wav = speech()
    full = wav + bytes(16 * 2**20 - len(wav))
    async with pair(tmp_path, small, medium) as (stub, _, _):
        response, _ = await transcribe(stub, full)
        assert response.text == "the medium text is here"
        _, trailers, _ = await failure(stub, full + b"\0")
        assert trailers["x-error-type"] == "payload_too_large"


async def test_the_better_founded_answer_is_returned_if_so_configured(
    tmp_path: Path, small: ScriptedModel, medium: ScriptedModel
) -> None:
    small.script.confidence, medium.script.confidence = 0.5, 0.4
    async with pair(tmp_path, small, medium, FINAL_CHOICE="best") as (stub, _, _):
        response, trailers = await transcribe(stub)
        assert response.text == "the small text is here"
        assert trailers["x-fallback-used"] == "true"
        assert trailers["x-final-model"] == "scripted-small"
        medium.script.confidence = 0.6
        response, _ = await transcribe(stub)
        assert response.text == "the medium text is here"


async def test_without_a_fallback_a_doubtful_answer_is_returned_as_it_is(tmp_path: Path, small: ScriptedModel) -> None:
    small.script.confidence = 0.1
    async with running(tmp_path, "primary", small) as service, stub_of(service) as stub:
        response, trailers = await transcribe(stub)
        assert response.text == "the small text is here"
        assert (trailers["x-conf-below"], trailers["x-fallback-used"]) == ("true", "false")
        small.script.error = OutOfMemory("the device is out of memory")
        code, trailers, _ = await failure(stub)
        assert (code, trailers["x-error-type"]) == (grpc.StatusCode.UNAVAILABLE, "out_of_memory")


async def test_used_skipped_and_failed_add_up_to_the_requests_that_were_routed(
    tmp_path: Path, small: ScriptedModel, medium: ScriptedModel
) -> None:
    async with pair(tmp_path, small, medium) as (stub, primary, fallback):
        await transcribe(stub)
        await failure(stub, b"not audio")
        small.script.confidence = 0.1
        await transcribe(stub)
        await fallback.stop()
        await failure(stub)
        counts = primary._snapshot_now()
    assert counts["fallback"] == {"used": 1, "skipped": 1, "failed": 1}
    assert counts["requests"]["total"] == 4
