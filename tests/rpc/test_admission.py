"""Admission of calls: API keys, rate limits, the queue, readiness, and the errors of refused calls."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

from protos.stt.v1 import speech_pb2 as pb
from protos.stt.v1 import speech_pb2_grpc
from stt_server.app import Service
from stt_server.config import Settings, parse
from stt_server.engine.types import Recognizer
from stt_server.testing.scripted_model import ScriptedModel
from tests.support.services import channel_to, failure, running, settings_text, stub_of, transcribe, until

KEYS = "web:key-of-the-web-front,batch:key-of-the-batch-job"


def bearer(key: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {key}"),)


async def test_only_a_configured_key_is_accepted(tmp_path: Path) -> None:
    async with running(tmp_path, API_KEYS=KEYS) as service, stub_of(service) as stub:
        twice = bearer("key-of-the-web-front") + bearer("key-of-the-batch-job")
        for metadata in ((), bearer("wrong"), (("authorization", "Basic abc"),), bearer(""), twice):
            code, trailers, _ = await failure(stub, metadata=metadata)
            assert code is grpc.StatusCode.UNAUTHENTICATED
            assert trailers["x-error-type"] == "unauthenticated"
            assert trailers["x-req-id"]
        response, _ = await transcribe(stub, metadata=bearer("key-of-the-batch-job"))
        assert response.text


async def test_operations_need_no_key(tmp_path: Path) -> None:
    async with running(tmp_path, API_KEYS=KEYS) as service, channel_to(service) as channel:
        operations = speech_pb2_grpc.OperationsStub(channel)
        status = await operations.GetStatus(pb.GetStatusRequest(), metadata=bearer("wrong"))
        assert status.limits.max_upload_bytes == 16 * 2**20
        assert status.limits.max_concurrency == 2
        assert (await operations.GetMetrics(pb.GetMetricsRequest())).exposition.startswith("# HELP")


async def check_admission(channel: grpc.aio.Channel, metadata: Any = ()) -> tuple[Any, dict[str, Any]]:
    """The response, or None and the trailing metadata of the refusal."""
    operations = speech_pb2_grpc.OperationsStub(channel)
    try:
        return await operations.CheckAdmission(pb.CheckAdmissionRequest(), metadata=metadata), {}
    except grpc.aio.AioRpcError as error:
        return None, {"code": error.code(), **dict(error.trailing_metadata() or ())}


async def test_check_admission_judges_the_key(tmp_path: Path) -> None:
    async with running(tmp_path, API_KEYS=KEYS) as service, channel_to(service) as channel:
        response, _ = await check_admission(channel, bearer("key-of-the-web-front"))
        assert response.max_upload_bytes == 16 * 2**20
        refused, trailers = await check_admission(channel, (*bearer("wrong"), ("x-req-id", "mine")))
        assert refused is None
        assert trailers["code"] is grpc.StatusCode.UNAUTHENTICATED
        assert (trailers["x-error-type"], trailers["x-req-id"]) == ("unauthenticated", "mine")
        assert trailers["grpc-status-details-bin"]
        operations = speech_pb2_grpc.OperationsStub(channel)
        exposition = (await operations.GetMetrics(pb.GetMetricsRequest())).exposition
    counted = 'stt_requests_exceptions_total{endpoint="/v1/transcribe",type="unauthenticated"} 1.0'
    assert counted in exposition


async def test_check_admission_judges_the_rate_without_a_token(tmp_path: Path) -> None:
    async with (
        running(tmp_path, API_KEYS=KEYS, RATE_LIMIT_RPS=0.01, RATE_LIMIT_BURST=1) as service,
        channel_to(service) as channel,
    ):
        key = bearer("key-of-the-web-front")
        for _ in range(3):
            assert (await check_admission(channel, key))[0] is not None
        await transcribe(speech_pb2_grpc.SpeechToTextStub(channel), metadata=key)
        refused, trailers = await check_admission(channel, key)
        assert refused is None
        assert (trailers["code"], trailers["x-error-type"]) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "rate_limited")
        assert int(trailers["retry-after-ms"]) > 0
        assert (await check_admission(channel, bearer("key-of-the-batch-job")))[0] is not None


async def test_each_key_has_its_own_rate_limit(tmp_path: Path) -> None:
    async with (
        running(tmp_path, API_KEYS=KEYS, RATE_LIMIT_RPS=0.01, RATE_LIMIT_BURST=2) as service,
        stub_of(service) as stub,
    ):
        web, batch = bearer("key-of-the-web-front"), bearer("key-of-the-batch-job")
        for _ in range(2):
            await transcribe(stub, metadata=web)
        code, trailers, _ = await failure(stub, metadata=web)
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert trailers["x-error-type"] == "rate_limited"
        assert 0 < int(trailers["retry-after-ms"]) <= 100_000
        await transcribe(stub, metadata=batch)


async def test_without_keys_the_forwarded_address_is_rate_limited(tmp_path: Path) -> None:
    async with (
        running(tmp_path, RATE_LIMIT_RPS=0.01, RATE_LIMIT_BURST=1) as service,
        stub_of(service) as stub,
    ):
        await transcribe(stub, metadata=(("x-forwarded-for", "203.0.113.1"),))
        code, _, _ = await failure(stub, metadata=(("x-forwarded-for", "203.0.113.1"),))
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        await transcribe(stub, metadata=(("x-forwarded-for", "203.0.113.2"),))


async def test_errors_carry_google_rpc_details(tmp_path: Path) -> None:
    async with (
        running(tmp_path, RATE_LIMIT_RPS=0.01, RATE_LIMIT_BURST=1) as service,
        stub_of(service) as stub,
    ):
        await transcribe(stub)
        _, trailers, _ = await failure(stub)
    status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    assert status.details[0].Unpack(info)
    assert status.details[1].Unpack(retry)
    assert (info.reason, info.domain) == ("RATE_LIMITED", "stt.v1")
    assert retry.retry_delay.ToMilliseconds() == int(trailers["retry-after-ms"])


async def test_a_request_over_the_queue_limit_is_refused(tmp_path: Path, model: ScriptedModel) -> None:
    model.open.clear()
    async with (
        running(tmp_path, "primary", model, MAX_CONCURRENCY=1, MAX_QUEUE=1) as service,
        stub_of(service) as stub,
    ):
        first = asyncio.ensure_future(transcribe(stub))
        await asyncio.get_running_loop().run_in_executor(None, model.entered.acquire)
        second = asyncio.ensure_future(transcribe(stub))
        await until(lambda: service.backend.batcher.waiting)
        assert service.queue_depth == 1
        code, trailers, _ = await failure(stub)
        assert code is grpc.StatusCode.UNAVAILABLE
        assert trailers["x-error-type"] == "overloaded"
        assert int(trailers["retry-after-ms"]) >= 1
        async with channel_to(service) as channel:
            refused, checked = await check_admission(channel)
        assert refused is None
        assert (checked["code"], checked["x-error-type"]) == (code, "overloaded")
        model.open.set()
        (_, one), (_, two) = await asyncio.gather(first, second)
    assert float(one["x-queue-wait-ms"]) < float(two["x-queue-wait-ms"])
    assert model.most_running == 1


async def test_a_cancelled_request_keeps_its_slot_until_inference_ends(tmp_path: Path, model: ScriptedModel) -> None:
    model.open.clear()
    async with running(tmp_path, "primary", model, MAX_CONCURRENCY=1) as service, stub_of(service) as stub:
        gone = asyncio.ensure_future(transcribe(stub))
        await asyncio.get_running_loop().run_in_executor(None, model.entered.acquire)
        gone.cancel()
        code, _, _ = await failure(stub, timeout=0.5)
        assert code is grpc.StatusCode.DEADLINE_EXCEEDED
        assert model.most_running == 1
        model.open.set()
        response, _ = await transcribe(stub)
        assert response.text


async def test_health_is_serving_once_the_model_is_warm(tmp_path: Path) -> None:
    warm = threading.Event()

    def load(_: Settings) -> Recognizer:
        warm.wait(20)
        return ScriptedModel()

    service = Service(parse(settings_text(tmp_path, "primary"), "primary"), load)
    starting = asyncio.ensure_future(service.start())
    await until(lambda: service.grpc_port)
    async with channel_to(service) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        code, trailers, _ = await failure(speech_pb2_grpc.SpeechToTextStub(channel))
        assert code is grpc.StatusCode.UNAVAILABLE
        assert trailers["x-error-type"] == "not_ready"
        assert (await check_admission(channel))[1]["x-error-type"] == "not_ready"
        warm.set()
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        await starting
        await transcribe(speech_pb2_grpc.SpeechToTextStub(channel))
        watch.cancel()
    await service.stop()


async def test_a_draining_service_finishes_admitted_requests(tmp_path: Path, model: ScriptedModel) -> None:
    model.open.clear()
    async with running(tmp_path, "primary", model) as service, stub_of(service) as stub:
        accepted = asyncio.ensure_future(transcribe(stub))
        await asyncio.get_running_loop().run_in_executor(None, model.entered.acquire)
        stopping = asyncio.ensure_future(service.stop())
        await until(lambda: service.readiness.state == "stopping")
        code, trailers, _ = await failure(stub)
        assert (code, trailers["x-error-type"]) == (grpc.StatusCode.UNAVAILABLE, "not_ready")
        assert not stopping.done()
        model.open.set()
        response, _ = await accepted
        assert response.text
        await stopping


async def test_a_taken_port_is_an_error(tmp_path: Path, service: Any) -> None:
    with pytest.raises(OSError, match=str(service.grpc_port)):
        async with running(tmp_path, GRPC_PORT=service.grpc_port):
            pass
