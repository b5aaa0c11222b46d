"""One service over a real socket: its responses and their trailing metadata."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from protos.stt.v1 import speech_pb2 as pb
from stt_server.app import Service
from stt_server.engine.types import DecodeOptions
from stt_server.testing.scripted_model import ScriptedModel
from tests.support.services import channel_to, failure, running, speech, stub_of, transcribe

MILLISECONDS = re.compile(r"^\d+\.\d$")


async def test_response_and_trailers_describe_the_transcript(stub: Any) -> None:
    response, trailers = await transcribe(stub, metadata=(("x-req-id", "abc-1"),))
    assert response.text == "the quick brown fox jumps over the lazy dog"
    assert response.language == "en"
    assert response.request_id == trailers["x-req-id"] == "abc-1"
    assert response.audio_duration.ToTimedelta().total_seconds() == pytest.approx(2.89, abs=0.02)
    assert response.language_probability == pytest.approx(0.97)
    assert [segment.model for segment in response.segments] == ["scripted-small"]
    assert trailers["x-fallback-used"] == "false"
    assert trailers["x-conf-below"] == "false"
    assert trailers["x-lang-check-applicable"] == "true"
    assert trailers["x-final-model"] == response.routing.final_model == "scripted-small"
    assert trailers["x-route-reason"] == "none"
    for name in ("x-queue-wait-ms", "x-primary-infer-ms", "x-total-ms"):
        assert MILLISECONDS.match(trailers[name]), name
    assert trailers["x-fallback-infer-ms"] == "0.0"
    assert "x-fallback-error" not in trailers


@pytest.mark.parametrize("given", ["a" * 65, "with space", "semi;colon", ""])
async def test_invalid_request_id_is_replaced(stub: Any, given: str) -> None:
    _, trailers = await transcribe(stub, metadata=(("x-req-id", given),))
    assert trailers["x-req-id"] != given
    assert re.fullmatch(r"[0-9a-f]{32}", trailers["x-req-id"])


async def test_forced_language_disables_the_language_check(stub: Any, model: ScriptedModel) -> None:
    model.script.language_probability = 0.1
    response, trailers = await transcribe(stub, language="de")
    assert model.seen == [DecodeOptions(language="de")]
    assert trailers["x-lang-check-applicable"] == "false"
    assert not response.HasField("language_probability")
    assert not response.routing.reasons


async def test_every_option_reaches_the_model(stub: Any, model: ScriptedModel) -> None:
    await transcribe(
        stub,
        candidate_languages=["de", "en"],
        task=pb.TASK_TRANSLATE,
        prompt="Foxes.",
        hotwords=["fox", " ", "dog"],
        word_timestamps=True,
    )
    assert model.seen == [
        DecodeOptions(
            candidate_languages=("de", "en"),
            task="translate",
            prompt="Foxes.",
            hotwords=("fox", "dog"),
            word_timestamps=True,
        )
    ]


async def test_silence_yields_an_empty_text_without_escalation(stub: Any, model: ScriptedModel) -> None:
    request = pb.TranscribeRequest(
        audio=bytes(2 * 16000 * 3),
        format=pb.AudioFormat(encoding=pb.AUDIO_ENCODING_LINEAR16, sample_rate_hertz=16000),
    )
    response = await stub.Transcribe(request)
    assert response.text == ""
    assert not response.segments
    assert not response.routing.confidence_below
    assert not response.routing.HasField("primary_confidence")
    assert model.seen == []


async def test_concurrent_requests_get_their_own_answers(stub: Any, model: ScriptedModel) -> None:
    model.open.clear()
    calls = [asyncio.ensure_future(transcribe(stub, metadata=(("x-req-id", f"r{n}"),))) for n in range(20)]
    for _ in range(2):
        await asyncio.get_running_loop().run_in_executor(None, model.entered.acquire)
    model.open.set()
    answers = await asyncio.gather(*calls)
    assert [trailers["x-req-id"] for _, trailers in answers] == [f"r{number}" for number in range(20)]
    assert model.most_running == 2


@pytest.mark.parametrize(
    ("name", "code"),
    [
        *((name, "en") for name in ("en", "EN", "en-US", "en_GB", " English ", "eng")),
        *((name, "de") for name in ("de-AT", "German", "de_DE.UTF-8", "ger")),
        *((name, None) for name in ("", "auto", "AUTO")),
    ],
)
async def test_languages_have_several_names(stub: Any, model: ScriptedModel, name: str, code: str | None) -> None:
    response, _ = await transcribe(stub, language=name)
    assert model.seen == [DecodeOptions(language=code)]
    assert response.language == code or code is None


async def test_candidates_have_several_names(stub: Any, model: ScriptedModel) -> None:
    await transcribe(stub, candidate_languages=["English", "en-GB", "auto", "de_DE"])
    assert model.seen == [DecodeOptions(candidate_languages=("en", "de"))]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"language": "xx"}, "xx"),
        ({"language": "en-"}, "en-"),
        ({"language": "yue"}, "does not support"),
        ({"candidate_languages": ["en", "Cantonese"]}, "Cantonese"),
        ({"candidate_languages": ["en", "klingon"]}, "klingon"),
        ({"task": 77}, "task"),
        ({"routing": 9}, "routing"),
        ({"routing": pb.ROUTING_POLICY_FALLBACK_ONLY}, "routing"),
        ({"prompt": "x" * 5000}, "prompt"),
        ({"hotwords": ["w"] * 300}, "hotwords"),
    ],
)
async def test_invalid_option_is_named(stub: Any, options: dict[str, Any], named: str) -> None:
    code, trailers, details = await failure(stub, **options)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert trailers["x-error-type"] == "invalid_argument"
    assert named in trailers["x-error-message"]
    assert named in details
    bad_request = error_details_pb2.BadRequest()
    assert status_pb2.Status.FromString(trailers["grpc-status-details-bin"]).details[-1].Unpack(bad_request)
    assert [it.field for it in bad_request.field_violations] == [f"options.{name}" for name in options]


async def test_sample_rate_out_of_range_is_rejected(stub: Any) -> None:
    for rate in (0, 8, 3999, 192001, 2**31 - 1):
        request = pb.TranscribeRequest(
            audio=bytes(1000),
            format=pb.AudioFormat(encoding=pb.AUDIO_ENCODING_LINEAR16, sample_rate_hertz=rate),
        )
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await stub.Transcribe(request)
        assert dict(error.value.trailing_metadata())["x-error-type"] == "invalid_argument", rate


async def test_upload_limit_is_exact(tmp_path: Path) -> None:
    async with running(tmp_path, MAX_UPLOAD_MB=1) as service, stub_of(service) as stub:
        wav = speech()
        exactly = wav + bytes(2**20 - len(wav))
        response, _ = await transcribe(stub, exactly)
        assert response.text
        code, trailers, _ = await failure(stub, exactly + b"x")
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert trailers["x-error-type"] == "payload_too_large"


async def test_fallback_service_never_escalates(tmp_path: Path, model: ScriptedModel) -> None:
    model.script.confidence, model.name = 0.1, "scripted-medium"
    async with running(tmp_path, "fallback", model) as service, stub_of(service) as stub:
        response, trailers = await transcribe(stub, routing=pb.ROUTING_POLICY_FALLBACK_ONLY)
    assert response.text
    assert not response.routing.confidence_below
    assert not response.routing.HasField("primary_confidence")
    assert response.routing.fallback_confidence == pytest.approx(0.1)
    assert trailers["x-route-reason"] == "none"


async def test_reflection_and_health_need_no_key(tmp_path: Path) -> None:
    async with running(tmp_path, API_KEYS="web:secret-key-of-the-web") as service, channel_to(service) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for name in ("", "stt.v1.SpeechToText"):
            answer = await health.Check(health_pb2.HealthCheckRequest(service=name))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await health.Check(health_pb2.HealthCheckRequest(service="unknown"))
        assert error.value.code() is grpc.StatusCode.NOT_FOUND
        listing = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(
            iter([reflection_pb2.ServerReflectionRequest(list_services="")])
        )
        async for reply in listing:
            names = {service.name for service in reply.list_services_response.service}
            assert {"stt.v1.SpeechToText", "stt.v1.Operations", "grpc.health.v1.Health"} <= names


async def test_service_without_gateway_opens_no_http_port(service: Service) -> None:
    assert service.http_port is None
    assert service.grpc_port > 0
