"""Unary calls of `SttClient` against a scripted server."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from protos.stt.v1 import speech_pb2
from stt_client import AudioFormat, CallRecord, Samples, SttClient
from stt_client.errors import (
    Internal,
    Overloaded,
    PayloadTooLarge,
)
from tests.support.contract_messages import SNAPSHOT
from tests.support.contract_script import Failure, Script
from tests.support.contract_service import serving

MIB = 1024 * 1024


async def test_bytes_are_transcribed_and_all_fields_returned() -> None:
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


async def test_a_file_over_the_message_limit_is_not_read(tmp_path: Path) -> None:
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


async def test_a_random_request_id_is_sent() -> None:
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
async def test_an_invalid_request_id_is_rejected(bad: str) -> None:
    async with SttClient() as client:
        with pytest.raises(ValueError, match="invalid request_id"):
            await client.transcribe(b"x", request_id=bad)


async def test_the_key_is_sent_as_bearer() -> None:
    async with serving() as served, SttClient(served.target, api_key="secret") as client:
        await client.transcribe(b"x")
        await client.status()
    assert served.script.calls[0].metadata["authorization"] == "Bearer secret"
    assert served.script.status_calls[0]["authorization"] == "Bearer secret"


async def test_extra_metadata_is_sent_and_overrides() -> None:
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


async def test_check_admission_returns_the_upload_limit_or_raises() -> None:
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


async def test_a_malformed_snapshot_is_an_internal_error() -> None:
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
