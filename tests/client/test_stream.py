"""`SttClient.stream` against a real server that hears letters in the audio."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest

from protos.stt.v1 import speech_pb2
from stt_client import FLUSH, AudioFormat, CallRecord, Final, Flush, Interim, SpeechEvent, StreamEvent, SttClient
from stt_client.errors import Cancelled, DeadlineExceeded, Internal, InvalidArgument, UpstreamUnavailable
from tests.client.test_client import unused_port
from tests.client.toy_stream import FORMAT, FRAME_BYTES, Toy, speech
from tests.support.contract_script import Failure, Script
from tests.support.contract_service import serving

WAIT_S = 20
MIB = 1024 * 1024


async def chunks(*parts: str | Flush, size: int = FRAME_BYTES) -> AsyncIterator[bytes | Flush]:
    """What is said, in chunks of `size` bytes."""
    for part in parts:
        if isinstance(part, Flush):
            yield part
        else:
            audio = speech(part)
            for start in range(0, len(audio), size):
                yield audio[start : start + size]


async def endless(closed: asyncio.Event) -> AsyncIterator[bytes]:
    """Audio that goes on until it is closed."""
    try:
        while True:
            yield speech("a")
            await asyncio.sleep(0)
    finally:
        closed.set()


def finals(events: list[StreamEvent]) -> list[str]:
    return [event.result.text for event in events if isinstance(event, Final)]


async def test_events_come_typed_and_in_order() -> None:
    async with serving(Script(stream=Toy())) as served, SttClient(served.target) as client:
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


async def test_an_event_as_json_has_the_protos_names() -> None:
    async with serving(Script(stream=Toy())) as served, SttClient(served.target) as client:
        events = [event async for event in client.stream(chunks("abc"), encoding=FORMAT)]
    started, interim, ended, final = [json.loads(json.dumps(event.as_dict())) for event in events]
    assert started == {"speech_event": {"type": "STARTED", "offset": 0.0}, "audio_processed": 0.1}
    assert interim["interim"] == {"utterance": 0, "stable_text": "a", "unstable_text": "bc", "language": ""}
    assert ended["speech_event"]["type"] == "ENDED"
    assert final["final"]["utterance"] == 0
    assert final["final"]["result"]["text"] == "abc"
    assert final["final"]["result"]["timings"]["queue_wait_ms"] == 1.5


async def test_options_reach_the_service() -> None:
    toy = Toy()
    async with serving(Script(stream=toy)) as served, SttClient(served.target, api_key="k") as client:
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
    (config,) = toy.configs
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


async def test_there_is_no_time_limit_unless_one_is_given() -> None:
    async with serving(Script(stream=Toy())) as served, SttClient(served.target, timeout=5) as client:
        _ = [event async for event in client.stream(chunks("a"), encoding=FORMAT)]
        _ = [event async for event in client.stream(chunks("a"), encoding=FORMAT, timeout=30)]
    unlimited, limited = (call.time_remaining for call in served.script.streams)
    assert unlimited is None or unlimited > 1e6
    assert limited is not None and 25 < limited < 31


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"task": "sing"}, "invalid task 'sing': use transcribe or translate"),
        ({"endpoint_silence": 0.0}, "use seconds greater than 0"),
        ({"endpoint_silence": float("nan")}, "use seconds greater than 0"),
        ({"hotwords": "Ada"}, "hotwords must be a sequence of strings"),
        ({"request_id": "a b"}, "invalid request_id"),
        ({"encoding": AudioFormat("mp3", 8000)}, "use linear16 or mulaw"),  # type: ignore[arg-type]
    ],
)
def test_an_option_that_is_none_is_said_at_once(options: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        SttClient().stream(chunks("a"), **{"encoding": FORMAT, **options})  # type: ignore[arg-type]


async def test_a_chunk_over_a_mebibyte_is_cut_into_messages() -> None:
    toy = Toy()
    audio = speech("a" + " " * 700 + "b" + " " * 700)
    assert len(audio) > 2 * MIB

    async def at_once() -> AsyncIterator[bytes]:
        yield audio

    async with serving(Script(stream=toy)) as served, SttClient(served.target) as client:
        events = [event async for event in client.stream(at_once(), encoding=FORMAT)]
    assert finals(events) == ["a", "b"]
    assert toy.received == [audio]
    assert toy.largest == MIB


async def test_a_flush_ends_the_utterance() -> None:
    async with serving(Script(stream=Toy())) as served, SttClient(served.target) as client:
        events = [event async for event in client.stream(chunks("ab", FLUSH, "cd"), encoding=FORMAT)]
    assert finals(events) == ["ab", "cd"]


async def test_events_come_while_the_audio_is_still_being_made() -> None:
    """The audio waits for the event that its first part leads to: only sending beside receiving gets on."""
    answered = asyncio.Event()

    async def conversation() -> AsyncIterator[bytes]:
        yield speech("ab      ")
        await answered.wait()
        yield speech("cd")

    seen: list[StreamEvent] = []
    async with serving(Script(stream=Toy())) as served, SttClient(served.target) as client:
        async for event in client.stream(conversation(), encoding=FORMAT):
            seen.append(event)
            if isinstance(event, Final):
                answered.set()
    assert finals(seen) == ["ab", "cd"]


async def test_an_error_of_the_audio_cancels_the_call_and_is_raised() -> None:
    script = Script(stream=Toy())
    records: list[CallRecord] = []

    async def broken() -> AsyncIterator[bytes]:
        yield speech("ab")
        raise OSError("the microphone is gone")

    async with serving(script) as served, SttClient(served.target, telemetry=records.append) as client:
        with pytest.raises(OSError, match="the microphone is gone"):
            _ = [event async for event in client.stream(broken(), encoding=FORMAT)]
        await asyncio.wait_for(script.cancelled.wait(), WAIT_S)
    assert [(record.ok, record.error_type) for record in records] == [(False, "cancelled")]


async def test_a_chunk_that_is_no_bytes_is_a_type_error() -> None:
    async def numbers() -> AsyncIterator[bytes]:
        yield 320  # type: ignore[misc]

    async with serving(Script(stream=Toy())) as served, SttClient(served.target) as client:
        with pytest.raises(TypeError, match="of type int: audio must yield bytes or FLUSH"):
            _ = [event async for event in client.stream(numbers(), encoding=FORMAT)]


async def test_closing_the_generator_cancels_the_call_and_closes_the_audio() -> None:
    script = Script(stream=Toy())
    closed = asyncio.Event()
    async with serving(script) as served, SttClient(served.target) as client:
        async with aclosing(client.stream(endless(closed), encoding=FORMAT)) as events:
            async for _ in events:
                break
        assert closed.is_set()
        await asyncio.wait_for(script.cancelled.wait(), WAIT_S)


async def test_a_task_that_is_cancelled_cancels_the_call_and_closes_the_audio() -> None:
    toy = Toy()
    script = Script(stream=toy)
    closed = asyncio.Event()
    async with serving(script) as served, SttClient(served.target) as client:

        async def listen() -> None:
            async for _ in client.stream(endless(closed), encoding=FORMAT, interim_results=False):
                pass

        task = asyncio.create_task(listen())
        await asyncio.wait_for(toy.heard.wait(), WAIT_S)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert closed.is_set()
        await asyncio.wait_for(script.cancelled.wait(), WAIT_S)


async def test_closing_the_client_ends_its_streams() -> None:
    toy = Toy()
    closed = asyncio.Event()
    async with serving(Script(stream=toy)) as served:
        client = SttClient(served.target)

        async def listen() -> None:
            async for _ in client.stream(endless(closed), encoding=FORMAT, interim_results=False):
                pass

        task = asyncio.create_task(listen())
        await asyncio.wait_for(toy.heard.wait(), WAIT_S)
        await client.close()
        with pytest.raises(Cancelled, match="the client was closed"):
            await asyncio.wait_for(task, WAIT_S)
        assert closed.is_set()


@pytest.mark.parametrize("resume", [False, True])
async def test_a_service_that_has_heard_enough_ends_the_sending(resume: bool) -> None:
    closed = asyncio.Event()

    async def talker() -> AsyncIterator[bytes]:
        yield speech("ab      ")
        async for chunk in endless(closed):
            yield chunk

    records: list[CallRecord] = []
    async with serving(Script(stream=Toy())) as served, SttClient(served.target, telemetry=records.append) as client:
        stream = client.stream(talker(), encoding=FORMAT, single_utterance=True, resume=resume)
        events = [event async for event in stream]
    assert finals(events) == ["ab"]
    assert [record.ok for record in records] == [True]


async def test_a_stream_is_one_record() -> None:
    records: list[CallRecord] = []
    async with serving(Script(stream=Toy())) as served, SttClient(served.target, telemetry=records.append) as client:
        _ = [event async for event in client.stream(chunks("ab", "c"), encoding=FORMAT, request_id="r1")]
        assert client.latency.count == 0
    (record,) = records
    assert (record.method, record.ok, record.error_type, record.request_id) == ("StreamTranscribe", True, "", "r1")
    assert record.audio_bytes == 3 * FRAME_BYTES


@pytest.mark.parametrize("resume", [False, True])
async def test_an_error_of_the_request_is_raised_by_its_type(resume: bool) -> None:
    script = Script(failure=Failure("invalid_argument", "no such language"))
    records: list[CallRecord] = []
    async with serving(script) as served, SttClient(served.target, telemetry=records.append) as client:
        with pytest.raises(InvalidArgument, match="no such language"):
            _ = [event async for event in client.stream(chunks("ab"), encoding=FORMAT, resume=resume)]
    assert [record.error_type for record in records] == ["invalid_argument"]
    assert len(script.streams) == 1


async def test_an_unexpected_error_of_the_service_is_internal() -> None:
    async def fails(requests: object, context: object) -> AsyncIterator[speech_pb2.StreamTranscribeResponse]:
        raise RuntimeError("a bug")
        yield

    async with serving(Script(stream=fails)) as served, SttClient(served.target) as client:
        with pytest.raises(Internal):
            _ = [event async for event in client.stream(chunks("ab"), encoding=FORMAT, resume=True)]


@pytest.mark.parametrize("resume", [False, True])
async def test_nobody_there_is_said_at_once_and_the_audio_is_not_touched(resume: bool) -> None:
    pulled = False

    async def audio() -> AsyncIterator[bytes]:
        nonlocal pulled
        pulled = True
        yield b""

    async with SttClient(f"127.0.0.1:{unused_port()}") as client:
        with pytest.raises(UpstreamUnavailable):
            _ = [event async for event in client.stream(audio(), encoding=FORMAT, resume=resume)]
    assert not pulled


@pytest.mark.parametrize("resume", [False, True])
async def test_a_timeout_ends_the_stream(resume: bool) -> None:
    closed = asyncio.Event()
    async with serving(Script(stream=Toy())) as served, SttClient(served.target) as client:
        with pytest.raises(DeadlineExceeded):
            stream = client.stream(endless(closed), encoding=FORMAT, timeout=0.3, resume=resume)
            _ = [event async for event in stream]
    assert closed.is_set()


async def test_a_service_that_does_not_read_slows_the_audio_down() -> None:
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
        while seen != pulled:  # until it stands still
            seen = pulled
            await asyncio.sleep(0.2)
        assert pulled < 64
        reads.set()
        await asyncio.wait_for(task, WAIT_S)
        assert pulled == 256
