"""`SttClient.stream` against a scripted server that recognizes letters."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from protos.stt.v1 import speech_pb2
from stt_client import FLUSH, AudioFormat, CallRecord, Final, Interim, SpeechEvent, StreamEvent, SttClient
from tests.support.contract_script import Script
from tests.support.contract_service import serving
from tests.support.letter_stream import FORMAT, FRAME_BYTES, WAIT_S, Letters, chunks, finals, speech

MIB = 1024 * 1024


async def test_events_are_typed_and_in_order() -> None:
    async with serving(Script(stream=Letters())) as served, SttClient(served.target) as client:
        events = [event async for event in client.stream(chunks("  abcd       ef"), encoding=FORMAT)]
    first, second = [SpeechEvent, Interim, SpeechEvent, Final], [SpeechEvent, SpeechEvent, Final]
    assert [type(event) for event in events] == first + second
    assert events[0] == SpeechEvent("started", 0.2, 0.3)
    assert events[1] == Interim(0, "a", "bc", "", 0.5)
    assert events[2] == SpeechEvent("ended", 0.6, 1.2)
    final = events[-1]
    assert isinstance(final, Final)
    assert (final.utterance, final.result.text, final.result.segments[0].start) == (1, "ef", 1.3)
    assert final.result.routing.fallback_used


async def test_events_as_dict_have_the_names_of_the_proto() -> None:
    async with serving(Script(stream=Letters())) as served, SttClient(served.target) as client:
        events = [event async for event in client.stream(chunks("abc"), encoding=FORMAT)]
    started, interim, ended, final = [json.loads(json.dumps(event.as_dict())) for event in events]
    assert started == {"speech_event": {"type": "STARTED", "offset": 0.0}, "audio_processed": 0.1}
    assert interim["interim"] == {"utterance": 0, "stable_text": "a", "unstable_text": "bc", "language": ""}
    assert ended["speech_event"]["type"] == "ENDED"
    assert final["final"]["utterance"] == 0
    assert final["final"]["result"]["text"] == "abc"
    assert final["final"]["result"]["timings"]["queue_wait_ms"] == 1.5


async def test_options_reach_the_service() -> None:
    letters = Letters()
    async with serving(Script(stream=letters)) as served, SttClient(served.target, api_key="k") as client:
        stream = client.stream(
            chunks("a"),
            encoding=AudioFormat("linear16", 8000, 1),
            interim_results=False,
            endpoint_silence=0.25,
            single_utterance=True,
            language="de",
            hotwords=["Ada"],
            routing="primary",
            request_id="live-1",
            metadata=[("x-more", "yes")],
        )
        assert [event async for event in stream if isinstance(event, Interim)] == []
    (config,) = letters.configs
    assert config.options.language == "de"
    assert list(config.options.hotwords) == ["Ada"]
    assert config.options.routing == speech_pb2.ROUTING_POLICY_PRIMARY_ONLY
    assert config.format == speech_pb2.AudioFormat(
        encoding=speech_pb2.AUDIO_ENCODING_LINEAR16, sample_rate_hertz=8000, channel_count=1
    )
    assert config.endpoint_silence.ToMilliseconds() == 250
    assert (config.interim_results, config.single_utterance) == (False, True)
    (call,) = served.script.streams
    assert (call.metadata["authorization"], call.metadata["x-req-id"], call.metadata["x-more"]) == (
        "Bearer k",
        "live-1",
        "yes",
    )


async def test_a_stream_has_no_deadline_by_default() -> None:
    async with serving(Script(stream=Letters())) as served, SttClient(served.target, timeout=5) as client:
        _ = [event async for event in client.stream(chunks("a"), encoding=FORMAT)]
        _ = [event async for event in client.stream(chunks("a"), encoding=FORMAT, timeout=30)]
    unlimited, limited = (call.time_remaining for call in served.script.streams)
    assert unlimited is None or unlimited > 1e6
    assert limited is not None and 25 < limited < 31


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "sing"}, "invalid task 'sing': use transcribe or translate"),
        ({"endpoint_silence": 0.0}, "use seconds greater than 0"),
        ({"endpoint_silence": float("nan")}, "use seconds greater than 0"),
        ({"hotwords": "Ada"}, "hotwords must be a sequence of strings"),
        ({"request_id": "a b"}, "invalid request_id"),
        ({"encoding": AudioFormat("mp3", 8000)}, "use linear16 or mulaw or alaw"),  # type: ignore[arg-type]
    ],
)
def test_an_invalid_stream_option_is_rejected_immediately(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SttClient().stream(chunks("a"), **{"encoding": FORMAT, **options})  # type: ignore[arg-type]


async def test_a_chunk_over_1_mib_is_split_into_messages() -> None:
    letters = Letters()
    audio = speech("a" + " " * 700 + "b" + " " * 700)
    assert len(audio) > 2 * MIB

    async def at_once() -> AsyncIterator[bytes]:
        yield audio

    async with serving(Script(stream=letters)) as served, SttClient(served.target) as client:
        events = [event async for event in client.stream(at_once(), encoding=FORMAT)]
    assert finals(events) == ["a", "b"]
    assert letters.received == [audio]
    assert letters.largest == MIB


async def test_a_flush_ends_the_utterance() -> None:
    async with serving(Script(stream=Letters())) as served, SttClient(served.target) as client:
        events = [event async for event in client.stream(chunks("ab", FLUSH, "cd"), encoding=FORMAT)]
    assert finals(events) == ["ab", "cd"]


async def test_events_arrive_while_audio_is_being_sent() -> None:
    """The audio waits for an event that its first part causes, so that sending must not block receiving."""
    answered = asyncio.Event()

    async def conversation() -> AsyncIterator[bytes]:
        yield speech("ab      ")
        await answered.wait()
        yield speech("cd")

    seen: list[StreamEvent] = []
    async with serving(Script(stream=Letters())) as served, SttClient(served.target) as client:
        async for event in client.stream(conversation(), encoding=FORMAT):
            seen.append(event)
            if isinstance(event, Final):
                answered.set()
    assert finals(seen) == ["ab", "cd"]


async def test_a_stream_is_one_record() -> None:
    records: list[CallRecord] = []
    async with (
        serving(Script(stream=Letters())) as served,
        SttClient(served.target, telemetry=records.append) as client,
    ):
        _ = [event async for event in client.stream(chunks("ab", "c"), encoding=FORMAT, request_id="r1")]
        assert client.latency.count == 0
    (record,) = records
    assert (record.method, record.ok, record.error_type, record.request_id) == ("StreamTranscribe", True, "", "r1")
    assert record.audio_bytes == 3 * FRAME_BYTES


async def test_a_service_that_does_not_read_blocks_the_audio() -> None:
    reads = asyncio.Event()
    pulled = 0

    async def deaf(requests: object, context: object) -> AsyncIterator[speech_pb2.StreamTranscribeResponse]:
        await reads.wait()
        async for _ in requests:  # type: ignore[attr-defined]
            pass
        return
        yield

    async def flood() -> AsyncIterator[bytes]:
        nonlocal pulled
        for _ in range(256):
            pulled += 1
            yield bytes(MIB)

    async with serving(Script(stream=deaf)) as served, SttClient(served.target) as client:

        async def listen() -> None:
            _ = [event async for event in client.stream(flood(), encoding=FORMAT)]

        task = asyncio.create_task(listen())
        await asyncio.wait_for(served.script.started.wait(), WAIT_S)
        seen = -1
        while seen != pulled:  # Until it stops growing.
            seen = pulled
            await asyncio.sleep(0.2)
        assert pulled < 64
        reads.set()
        await asyncio.wait_for(task, WAIT_S)
        assert pulled == 256
