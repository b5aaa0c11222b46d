"""Primary and fallback over real sockets: whose answer is returned, and what the trailers say."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import grpc
import pytest

from protos.stt.v1 import speech_pb2 as pb
from stt_server.errors import EngineError, OutOfMemory
from stt_server.testing.scripted_model import Script, ScriptedModel
from tests.support.pair import pair
from tests.support.services import failure, running, speech, stub_of, transcribe


@pytest.fixture
def small() -> ScriptedModel:
    return ScriptedModel(Script(text=" the small text is here"))


@pytest.fixture
def medium() -> ScriptedModel:
    return ScriptedModel(Script(text=" the medium text is here", confidence=0.8), name="scripted-medium")


async def test_confident_answer_stays_on_the_primary(
    tmp_path: Path, small: ScriptedModel, medium: ScriptedModel
) -> None:
    async with pair(tmp_path, small, medium) as (stub, primary, _):
        response, trailers = await transcribe(stub)
        assert response.text == "the small text is here"
        assert (trailers["x-fallback-used"], trailers["x-route-reason"]) == ("false", "none")
        assert 'stt_fallback_total{result="skipped"} 1.0' in primary.instruments.metrics.exposition()[0]
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
async def test_each_routing_reason_escalates(
    tmp_path: Path, small: ScriptedModel, medium: ScriptedModel, script: Script, reasons: str
) -> None:
    small.script = script
    async with pair(tmp_path, small, medium) as (stub, primary, _):
        response, trailers = await transcribe(stub)
        exposition = primary.instruments.metrics.exposition()[0]
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


async def test_hallucination_is_dropped_without_escalation(
    tmp_path: Path, small: ScriptedModel, medium: ScriptedModel
) -> None:
    small.script = Script(text=" Thank you.", confidence=0.2, suppressed="no_speech", redecoded_seconds=7.5)
    async with pair(tmp_path, small, medium) as (stub, primary, _):
        response, trailers = await transcribe(stub)
        exposition = primary.instruments.metrics.exposition()[0]
    assert (response.text, list(response.segments)) == ("", [])
    assert (trailers["x-route-reason"], trailers["x-conf-below"]) == ("none", "false")
    assert medium.seen == []
    assert 'stt_suppressed_texts_total{reason="no_speech"} 1.0' in exposition
    assert 'stt_suppressed_texts_total{reason="loop"} 0.0' in exposition
    assert "stt_redecoded_seconds_total 7.5" in exposition


async def test_options_reach_the_fallback_unchanged(
    tmp_path: Path, small: ScriptedModel, medium: ScriptedModel
) -> None:
    small.script.confidence = 0.1
    async with pair(tmp_path, small, medium) as (stub, _, _):
        await transcribe(stub, language="fr", prompt="Le renard.", hotwords=["renard"], word_timestamps=True)
        await transcribe(stub, candidate_languages=["en", "de"])
    assert medium.seen[0] == small.seen[0]
    assert medium.seen[0].language == "fr"
    assert medium.seen[1].language is None, "the fallback detects the language itself"
    assert medium.seen[1].candidate_languages == ("en", "de")


async def test_routing_policy_selects_the_model(tmp_path: Path, small: ScriptedModel, medium: ScriptedModel) -> None:
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


async def test_slot_is_released_during_escalation(tmp_path: Path, small: ScriptedModel, medium: ScriptedModel) -> None:
    small.script.confidence = 0.1
    medium.open.clear()
    async with pair(tmp_path, small, medium, MAX_CONCURRENCY=1, MAX_QUEUE=0) as (stub, _, _):
        weak = asyncio.ensure_future(transcribe(stub))
        await asyncio.get_running_loop().run_in_executor(None, medium.entered.acquire)
        response, _ = await transcribe(stub, routing=pb.ROUTING_POLICY_PRIMARY_ONLY)
        assert response.text == "the small text is here"
        assert not weak.done()
        medium.open.set()
        response, _ = await weak
        assert response.text == "the medium text is here"


@pytest.mark.parametrize("on_error", ["fail", "degrade"])
async def test_stopped_fallback_fails_or_degrades(
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
        exposition = primary.instruments.metrics.exposition()[0]
    assert trailers["x-fallback-error"] == "unavailable"
    assert 'stt_fallback_total{result="failed"} 1.0' in exposition


async def test_degrade_runs_the_primary_if_it_was_skipped(
    tmp_path: Path, small: ScriptedModel, medium: ScriptedModel
) -> None:
    async with pair(tmp_path, small, medium, FALLBACK_ON_ERROR="degrade") as (stub, _, fallback):
        await fallback.stop()
        response, trailers = await transcribe(stub, routing=pb.ROUTING_POLICY_FALLBACK_ONLY)
    assert response.text == "the small text is here"
    assert trailers["x-route-reason"] == "requested"
    assert trailers["x-fallback-error"] == "unavailable"


async def test_degrade_returns_the_primarys_error_if_both_fail(
    tmp_path: Path, small: ScriptedModel, medium: ScriptedModel
) -> None:
    small.script.error = OutOfMemory("the device is out of memory")
    async with pair(tmp_path, small, medium, FALLBACK_ON_ERROR="degrade") as (stub, _, fallback):
        await fallback.stop()
        code, trailers, _ = await failure(stub)
    assert (code, trailers["x-error-type"]) == (grpc.StatusCode.UNAVAILABLE, "out_of_memory")
    assert trailers["x-fallback-error"] == "unavailable"


@pytest.mark.parametrize("on_error", ["fail", "degrade"])
async def test_slow_fallback_times_out(
    tmp_path: Path, small: ScriptedModel, medium: ScriptedModel, on_error: str
) -> None:
    small.script.confidence = 0.1
    medium.open.clear()
    keys: dict[str, Any] = {"FALLBACK_TIMEOUT_S": 0.3, "FALLBACK_ON_ERROR": on_error}
    async with pair(tmp_path, small, medium, **keys) as (stub, _, _):
        try:
            if on_error == "fail":
                _, trailers, _ = await failure(stub)
                assert trailers["x-error-type"] == "fallback_failed"
            else:
                response, trailers = await transcribe(stub)
                assert response.text == "the small text is here"
            assert trailers["x-fallback-error"] == "deadline_exceeded"
            assert 250 <= float(trailers["x-fallback-infer-ms"]) < 5000  # it gives up slightly early
        finally:
            medium.open.set()


async def test_degrade_answers_before_the_callers_deadline(
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
async def test_fallbacks_error_is_reported_to_the_caller(
    tmp_path: Path,
    small: ScriptedModel,
    medium: ScriptedModel,
    keys: dict[str, Any],
    fallback_keys: dict[str, Any],
    expected: str,
) -> None:
    small.script.confidence = 0.1
    async with pair(tmp_path, small, medium, fallback_keys=fallback_keys, **keys) as (stub, _, _):
        if expected == "rate_limited":
            await transcribe(stub)
        code, trailers, _ = await failure(stub)
    assert (code, trailers["x-error-type"]) == (grpc.StatusCode.UNAVAILABLE, "fallback_failed")
    assert trailers["x-fallback-error"] == expected


async def test_fallback_accepts_the_primarys_key(tmp_path: Path, small: ScriptedModel, medium: ScriptedModel) -> None:
    small.script.confidence = 0.1
    fallback_keys = {"API_KEYS": "primary:the-key-of-the-hop"}
    keys = {"FALLBACK_API_KEY": "the-key-of-the-hop"}
    async with pair(tmp_path, small, medium, fallback_keys=fallback_keys, **keys) as (stub, _, _):
        response, _ = await transcribe(stub)
    assert response.text == "the medium text is here"


async def test_upload_limit_is_exact_through_both_services(
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


async def test_work_of_the_fallback_is_in_one_histogram_of_each_service(
    tmp_path: Path, small: ScriptedModel, medium: ScriptedModel
) -> None:
    small.script.confidence = 0.1
    async with pair(tmp_path, small, medium) as (stub, primary, fallback):
        _, trailers = await transcribe(stub)
        expositions = [service.instruments.metrics.exposition()[0] for service in (primary, fallback)]
    assert trailers["x-fallback-used"] == "true"
    counts = [re.findall(r"^stt_(primary|fallback)_infer_seconds_count (\S+)$", text, re.M) for text in expositions]
    assert [dict(found) for found in counts] == [
        {"primary": "1.0", "fallback": "1.0"},
        {"primary": "1.0", "fallback": "0.0"},
    ]


async def test_final_choice_best_returns_the_more_confident_answer(
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


async def test_without_a_fallback_a_weak_answer_is_returned(tmp_path: Path, small: ScriptedModel) -> None:
    small.script.confidence = 0.1
    async with running(tmp_path, "primary", small) as service, stub_of(service) as stub:
        response, trailers = await transcribe(stub)
        assert response.text == "the small text is here"
        assert (trailers["x-conf-below"], trailers["x-fallback-used"]) == ("true", "false")
        small.script.error = OutOfMemory("the device is out of memory")
        code, trailers, _ = await failure(stub)
        assert (code, trailers["x-error-type"]) == (grpc.StatusCode.UNAVAILABLE, "out_of_memory")


async def test_fallback_counts_add_up_to_the_routed_requests(
    tmp_path: Path, small: ScriptedModel, medium: ScriptedModel
) -> None:
    async with pair(tmp_path, small, medium) as (stub, primary, fallback):
        await transcribe(stub)
        await failure(stub, b"not audio")
        small.script.confidence = 0.1
        await transcribe(stub)
        await fallback.stop()
        await failure(stub)
        counts = primary.instruments.snapshot()
    assert counts["fallback"] == {"used": 1, "skipped": 1, "failed": 1}
    assert counts["requests"]["total"] == 4
