"""Health, deadlines, cancellation, closing and telemetry of `SttClient`."""

from __future__ import annotations

import asyncio
import dataclasses
import logging

import pytest

from stt_client import CallRecord, SttClient, SttError
from stt_client.errors import (
    Cancelled,
    DeadlineExceeded,
    NotReady,
    UpstreamUnavailable,
)
from tests.support.contract_script import Failure, Script
from tests.support.contract_service import serving, start, unused_port


async def test_health_is_true_only_for_a_serving_service() -> None:
    async with serving() as served, SttClient(served.target) as client:
        assert await client.health()
        await served.set_serving(False)
        assert not await client.health()
        with pytest.raises(SttError, match="NOT_FOUND"):
            await client.health("no.such.Service")
    async with SttClient(f"127.0.0.1:{unused_port()}") as client:
        assert not await client.health()


async def test_wait_ready_returns_when_the_service_is_serving() -> None:
    async with serving() as served, SttClient(served.target) as client:
        await served.set_serving(False)
        waiting = asyncio.create_task(client.wait_ready(20))
        assert not await client.health()
        assert not waiting.done()
        await served.set_serving(True)
        await waiting


async def test_wait_ready_waits_for_a_server_that_starts_later() -> None:
    port = unused_port()
    async with SttClient(f"127.0.0.1:{port}") as client:
        waiting = asyncio.create_task(client.wait_ready(20))
        with pytest.raises(UpstreamUnavailable):
            await client.transcribe(b"x")
        served = await start(address=f"127.0.0.1:{port}")
        await waiting
        await served.stop()


async def test_wait_ready_gives_up_after_its_timeout() -> None:
    async with serving() as served, SttClient(served.target) as client:
        await served.set_serving(False)
        with pytest.raises(NotReady, match=r"not ready within 0\.1 s"):
            await client.wait_ready(0.1)


async def test_the_deadline_reaches_the_server_and_ends_the_call() -> None:
    script = Script(hold=asyncio.Event())
    async with serving(script) as served, SttClient(served.target, timeout=30) as client:
        with pytest.raises(DeadlineExceeded, match="no answer from"):
            await client.transcribe(b"x", timeout=0.2)
        await asyncio.wait_for(script.cancelled.wait(), 10)
    remaining = script.calls[0].time_remaining
    assert remaining is not None
    assert 0 < remaining <= 0.2


async def test_the_timeout_of_a_call_overrides_that_of_the_client() -> None:
    async with serving() as served, SttClient(served.target, timeout=30) as client:
        await client.transcribe(b"x")
        await client.transcribe(b"x", timeout=None)
    first, second = (call.time_remaining for call in served.script.calls)
    assert first is not None
    assert 25 < first < 31, "gRPC rounds deadlines up"
    assert second is None


async def test_cancelling_the_task_cancels_the_call_at_the_server() -> None:
    script = Script(hold=asyncio.Event())
    records: list[CallRecord] = []
    async with serving(script) as served, SttClient(served.target, telemetry=records.append) as client:
        call = asyncio.create_task(client.transcribe(b"x"))
        await script.started.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await asyncio.wait_for(script.cancelled.wait(), 10)
    assert records[0].error_type == "cancelled"


async def test_closing_the_client_ends_a_call_with_cancelled() -> None:
    script = Script(hold=asyncio.Event())
    async with serving(script) as served:
        client = SttClient(served.target)
        call = asyncio.create_task(client.transcribe(b"x"))
        await script.started.wait()
        await client.close()
        with pytest.raises((Cancelled, asyncio.CancelledError)) as caught:
            await call
        if hasattr(asyncio.Task, "cancelling"):
            assert caught.type is Cancelled
        with pytest.raises(RuntimeError, match="closed"):
            await client.transcribe(b"x")
        await client.close()


async def test_a_client_is_bound_to_its_event_loop() -> None:
    async with serving() as served, SttClient(served.target) as client:
        await client.status()
        with pytest.raises(RuntimeError, match="event loop"):
            await asyncio.to_thread(lambda: asyncio.run(client.status()))


async def test_telemetry_records_success_and_failure() -> None:
    records: list[CallRecord] = []
    async with serving() as served, SttClient(served.target, telemetry=records.append) as client:
        transcript = await client.transcribe(b"12345", request_id="one")
        served.script.fail(Failure("unsupported_audio"))
        with pytest.raises(SttError):
            await client.transcribe(b"123", request_id="two")
        await client.metrics()
    good, bad, metrics = records
    assert dataclasses.replace(good, seconds=0.0) == CallRecord(
        "Transcribe", served.target, "one", True, "", 0.0, 5, transcript
    )
    assert good.seconds > 0
    assert (bad.ok, bad.error_type, bad.request_id, bad.audio_bytes, bad.transcript) == (
        False,
        "unsupported_audio",
        "two",
        3,
        None,
    )
    assert (metrics.method, metrics.ok) == ("GetMetrics", True)
    assert "hello world" not in repr(good)


async def test_a_failing_telemetry_hook_does_not_fail_the_call(caplog: pytest.LogCaptureFixture) -> None:
    def broken(record: CallRecord) -> None:
        raise ZeroDivisionError

    async with serving() as served, SttClient(served.target, telemetry=broken) as client:
        with caplog.at_level(logging.ERROR, "stt_client"):
            assert (await client.transcribe(b"x")).text == "hello world"
    assert "telemetry hook failed" in caplog.text


async def test_latency_counts_successful_transcriptions_only() -> None:
    async with serving() as served, SttClient(served.target) as client:
        assert (client.latency.count, client.latency.p50, client.latency.p99) == (0, None, None)
        await client.transcribe(b"x")
        await client.status()
        served.script.fail(Failure("empty_audio"))
        with pytest.raises(SttError):
            await client.transcribe(b"x")
        assert client.latency.count == 1
        assert client.latency.p50 == client.latency.p99 != 0
