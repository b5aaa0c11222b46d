"""The asyncio client against real servers."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import socket
from pathlib import Path

import numpy as np
import pytest

from protos.stt.v1 import speech_pb2
from stt_client import AudioFormat, CallRecord, Samples, SttClient, SttError
from stt_client.errors import (
    Cancelled,
    DeadlineExceeded,
    Internal,
    NotReady,
    Overloaded,
    PayloadTooLarge,
    UpstreamUnavailable,
)
from tests.support.contract_messages import SNAPSHOT
from tests.support.contract_script import Failure, Script
from tests.support.contract_service import serving, start

MIB = 1024 * 1024


def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def test_bytes_are_transcribed_and_every_field_arrives() -> None:
    async with serving() as served, SttClient(served.target) as client:
        transcript = await client.transcribe(b"RIFF", word_timestamps=True)
    assert transcript.text == "hello world"
    assert transcript.language_probability == 0.99
    assert transcript.segments[0].end == 1.234567
    assert [word.text for word in transcript.segments[0].words] == ["hello", "world"]
    assert transcript.routing.reasons == ("low_logprob", "few_words")
    assert transcript.routing.fallback_confidence is None
    assert transcript.timings.total == 0.02525
    assert transcript.metadata["x-final-model"] == "tiny"


async def test_a_path_is_read_and_its_bytes_sent(tmp_path: Path) -> None:
    file = tmp_path / "talk.wav"
    file.write_bytes(b"RIFFdata")
    async with serving() as served, SttClient(served.target) as client:
        await client.transcribe(file)
        await client.transcribe(str(file))
    assert [request.audio for request in served.script.requests] == [b"RIFFdata"] * 2


async def test_a_missing_file_is_a_file_not_found_error(tmp_path: Path) -> None:
    async with SttClient() as client:
        with pytest.raises(FileNotFoundError):
            await client.transcribe(tmp_path / "none.wav")


async def test_a_file_over_the_message_limit_is_refused_before_it_is_read(tmp_path: Path) -> None:
    file = tmp_path / "huge.wav"
    with file.open("wb") as sparse:
        sparse.truncate(2 * MIB)
    async with SttClient(max_message_bytes=MIB) as client:
        with pytest.raises(PayloadTooLarge, match=r"huge\.wav has 2097152 bytes"):
            await client.transcribe(file)


async def test_samples_are_sent_as_headerless_linear16() -> None:
    stereo = np.array([[0.0, 1.0], [-1.0, 0.5]], dtype=np.float32)
    async with serving() as served, SttClient(served.target) as client:
        await client.transcribe(Samples(stereo, 8000))
    (request,) = served.script.requests
    assert np.frombuffer(request.audio, "<i2").tolist() == [0, 32767, -32768, 16384]
    assert request.format == speech_pb2.AudioFormat(
        encoding=speech_pb2.AUDIO_ENCODING_LINEAR16, sample_rate_hertz=8000, channel_count=2
    )


async def test_all_options_travel() -> None:
    async with serving() as served, SttClient(served.target) as client:
        await client.transcribe(
            b"x",
            language="de",
            candidate_languages=["de", "fr"],
            task="translate",
            prompt="Ahem.",
            hotwords=("Ada", "Grace"),
            word_timestamps=True,
            routing="fallback",
            encoding=AudioFormat("mulaw", 8000, 2),
        )
    (request,) = served.script.requests
    assert request.options == speech_pb2.TranscribeOptions(
        language="de",
        candidate_languages=["de", "fr"],
        task=speech_pb2.TASK_TRANSLATE,
        prompt="Ahem.",
        hotwords=["Ada", "Grace"],
        word_timestamps=True,
        routing=speech_pb2.ROUTING_POLICY_FALLBACK_ONLY,
    )
    assert request.format.encoding == speech_pb2.AUDIO_ENCODING_MULAW
    assert (request.format.sample_rate_hertz, request.format.channel_count) == (8000, 2)


async def test_a_request_id_is_made_and_sent() -> None:
    async with serving() as served, SttClient(served.target) as client:
        first = await client.transcribe(b"x")
        second = await client.transcribe(b"x")
    sent = [call.metadata["x-req-id"] for call in served.script.calls]
    assert sent == [first.request_id, second.request_id]
    assert len(set(sent)) == 2
    assert len(sent[0]) == 32


async def test_a_given_request_id_is_kept() -> None:
    async with serving() as served, SttClient(served.target) as client:
        transcript = await client.transcribe(b"x", request_id="order-66")
    assert transcript.request_id == served.script.calls[0].metadata["x-req-id"] == "order-66"


@pytest.mark.parametrize("bad", ["", "a b", "line\nbreak", "x" * 65, "é"])
async def test_a_request_id_that_the_service_would_drop_is_refused(bad: str) -> None:
    async with SttClient() as client:
        with pytest.raises(ValueError, match="invalid request_id"):
            await client.transcribe(b"x", request_id=bad)


async def test_the_key_is_sent_as_bearer() -> None:
    async with serving() as served, SttClient(served.target, api_key="secret") as client:
        await client.transcribe(b"x")
        await client.status()
    assert served.script.calls[0].metadata["authorization"] == "Bearer secret"
    assert served.script.status_calls[0]["authorization"] == "Bearer secret"


async def test_extra_metadata_passes_and_overrides() -> None:
    extra = [("authorization", "Bearer theirs"), ("x-forwarded-for", "10.0.0.9"), ("x-req-id", "theirs")]
    records: list[CallRecord] = []
    async with (
        serving() as served,
        SttClient(served.target, api_key="ours", telemetry=records.append) as client,
    ):
        await client.transcribe(b"x", metadata=extra)
        await client.status(metadata=[("authorization", "Bearer theirs"), ("x-more", "yes")])
    seen = served.script.calls[0].metadata
    assert {name: seen[name] for name, _ in extra} == dict(extra)
    assert served.script.status_calls[0]["authorization"] == "Bearer theirs"
    assert served.script.status_calls[0]["x-more"] == "yes"
    assert records[0].request_id == "theirs"


async def test_check_admission_gives_the_upload_limit_or_the_refusal() -> None:
    async with serving() as served, SttClient(served.target, api_key="ours") as client:
        assert await client.check_admission(metadata=[("x-forwarded-for", "10.0.0.9")]) == 16 * 1024 * 1024
        sent = served.script.admission_checks[0]
        assert (sent["authorization"], sent["x-forwarded-for"]) == ("Bearer ours", "10.0.0.9")
        served.script.status_failure = Failure("overloaded", "try later")
        with pytest.raises(Overloaded):
            await client.check_admission()


async def test_status_is_typed() -> None:
    async with serving() as served, SttClient(served.target) as client:
        status = await client.status()
    assert (status.service, status.model, status.device, status.compute_type) == (
        "primary",
        "tiny",
        "cpu",
        "int8",
    )
    assert status.uptime == 12.5
    assert status.limits.max_upload_bytes == 16 * MIB
    assert status.limits.max_audio_duration == 3600.0
    assert (status.limits.max_concurrency, status.limits.max_queue) == (2, 64)
    assert status.snapshot == SNAPSHOT


async def test_a_snapshot_that_is_no_object_is_an_internal_error() -> None:
    records: list[CallRecord] = []
    script = Script(snapshot_json="[1, 2")
    async with serving(script) as served, SttClient(served.target, telemetry=records.append) as client:
        with pytest.raises(Internal, match="snapshot"):
            await client.status()
    assert records[0].error_type == "internal"


async def test_metrics_are_the_exposition_text() -> None:
    async with serving() as served, SttClient(served.target) as client:
        metrics = await client.metrics()
    assert metrics.exposition == "stt_in_flight 0\n"
    assert metrics.content_type.startswith("text/plain")


async def test_health_tells_serving_from_not_serving_and_from_nobody_there() -> None:
    async with serving() as served, SttClient(served.target) as client:
        assert await client.health()
        await served.set_serving(False)
        assert not await client.health()
        with pytest.raises(SttError, match="NOT_FOUND"):
            await client.health("no.such.Service")
    async with SttClient(f"127.0.0.1:{unused_port()}") as client:
        assert not await client.health()


async def test_wait_ready_returns_when_the_service_turns_serving() -> None:
    async with serving() as served, SttClient(served.target) as client:
        await served.set_serving(False)
        waiting = asyncio.create_task(client.wait_ready(20))
        assert not await client.health()
        assert not waiting.done()
        await served.set_serving(True)
        await waiting


async def test_wait_ready_outlasts_a_server_that_is_not_yet_there() -> None:
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


async def test_the_clients_timeout_counts_unless_the_call_says_otherwise() -> None:
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


async def test_a_client_stays_with_its_event_loop() -> None:
    async with serving() as served, SttClient(served.target) as client:
        await client.status()
        with pytest.raises(RuntimeError, match="event loop"):
            await asyncio.to_thread(lambda: asyncio.run(client.status()))


async def test_telemetry_hears_of_success_and_failure() -> None:
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


async def test_a_telemetry_hook_that_raises_costs_nothing(caplog: pytest.LogCaptureFixture) -> None:
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
