"""The Wyoming protocol, driven by the official package's client."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from wyoming.asr import Transcribe
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.event import Event, Eventable
from wyoming.info import Describe, Info
from wyoming.ping import Ping, Pong

from gateway.http.server import GatewayServer
from gateway.options import GatewayOptions, WyomingOptions
from gateway.wyoming.caller import Caller, TranscriptEvents
from stt_client.convert import transcript_of
from stt_server.testing.wyoming_caller import answers, speak
from tests.gateway.transcripts import two_segments
from tests.support.contract_messages import SNAPSHOT
from tests.support.contract_messages import transcript as one_segment
from tests.support.contract_script import Failure
from tests.support.contract_service import ContractService
from tests.support.wyoming_caller import calling, error, transcript

pytestmark = pytest.mark.asyncio(loop_scope="session")

SECOND = bytes(32_000)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def home(running_service: ContractService) -> AsyncIterator[GatewayServer]:
    options = GatewayOptions(
        running_service.target, host="127.0.0.1", port=0, wyoming=WyomingOptions(0, "key-of-the-home")
    )
    server = GatewayServer(options)
    await server.start()
    yield server
    await server.stop(1)


async def test_service_is_described_as_one_program_with_its_model(
    home: GatewayServer, service: ContractService
) -> None:
    service.script.snapshot_json = json.dumps({**SNAPSHOT, "languages": ["de", "en", "yue"]})
    async with calling(home.wyoming_port) as client:
        await client.write_event(Describe().event())
        event = await client.read_event()
    assert event is not None
    (program,) = Info.from_event(event).asr
    (model,) = program.models
    assert program.installed and model.installed and program.supports_transcript_streaming
    assert (model.name, model.languages) == ("whisper-tiny", ["de", "en", "yue"])
    assert not any(getattr(Info.from_event(event), kind) for kind in ("tts", "wake", "handle", "intent", "mic", "snd"))


async def test_speech_becomes_one_call_and_a_transcript(home: GatewayServer, service: ContractService) -> None:
    audio = bytes(range(256)) * 100
    async with calling(home.wyoming_port) as client:
        await speak(
            client,
            audio,
            rate=48_000,
            channels=2,
            language="en-US",
            transcript_names=["Küche", " ", "Anna"],
            transcript_terms=["Anna", "Licht"],
        )
        found = await transcript(client)
    expected = transcript_of(two_segments(), {})
    assert (found.text, found.language) == (expected.text, expected.language)
    (call,) = service.script.calls
    request = call.request
    assert request.audio == audio
    assert (request.format.encoding, request.format.sample_rate_hertz, request.format.channel_count) == (1, 48_000, 2)
    assert request.options.language == "en-US"
    assert list(request.options.hotwords) == ["Küche", "Anna", "Licht"]
    assert call.metadata["authorization"] == "Bearer key-of-the-home"
    assert call.metadata["x-forwarded-for"] == "127.0.0.1"
    (check,) = service.script.admission_checks
    assert (check["authorization"], check["x-req-id"]) == ("Bearer key-of-the-home", call.metadata["x-req-id"])


async def test_settled_segments_are_chunks_before_the_result(home: GatewayServer, service: ContractService) -> None:
    service.script.hold_result = asyncio.Event()
    async with calling(home.wyoming_port) as client:
        await speak(client, SECOND)
        first = [await client.read_event(), await client.read_event()]
        service.script.hold_result.set()
        rest = await answers(client)
    assert [event and event.type for event in first] == ["transcript-start", "transcript-chunk"]
    assert [event.type for event in rest] == ["transcript-chunk", "transcript", "transcript-stop"]


async def test_each_segment_is_a_chunk_though_several_are_settled_together() -> None:
    sent: list[Event] = []

    class Collecting(Caller):
        def __init__(self) -> None:
            """Without a connection."""

        async def send(self, event: Eventable) -> None:
            sent.append(event.event())

    result = transcript_of(two_segments(), {})
    events = TranscriptEvents(Collecting())
    await events.add(result.segments)
    await events.finish(result)
    assert [event.type for event in sent] == [
        "transcript-start",
        "transcript-chunk",
        "transcript-chunk",
        "transcript",
        "transcript-stop",
    ]
    assert sent[1].data["text"] + sent[2].data["text"] == sent[3].data["text"]


async def test_one_connection_has_several_transcripts_each_with_its_own_options(
    home: GatewayServer, service: ContractService
) -> None:
    service.script.reply = lambda request: f"{len(request.audio)} bytes"
    async with calling(home.wyoming_port) as client:
        await speak(client, SECOND, language="de", transcript_names=["Anna"])
        await speak(client, SECOND + SECOND, rate=8000)
        assert [(await transcript(client)).text for _ in range(2)] == ["32000 bytes", "64000 bytes"]
    options = [request.options for request in service.script.requests]
    assert [(each.language, list(each.hotwords)) for each in options] == [("de", ["Anna"]), ("", [])]


async def test_options_within_audio_hold_for_it(home: GatewayServer, service: ContractService) -> None:
    async with calling(home.wyoming_port) as client:
        for options in (Transcribe(language="de", transcript_names=["Anna"]).event(), Ping().event()):
            await client.write_event(AudioStart(16_000, 2, 1).event())
            await client.write_event(options)
            await client.write_event(AudioChunk(16_000, 2, 1, SECOND).event())
            await client.write_event(AudioStop().event())
            while (event := await client.read_event()) is not None and event.type != "transcript-stop":
                assert event.type != "error", event
    options_sent = [request.options for request in service.script.requests]
    assert [(each.language, list(each.hotwords)) for each in options_sent] == [("de", ["Anna"]), ("", [])]


async def test_audio_may_begin_with_its_first_chunk(home: GatewayServer, service: ContractService) -> None:
    async with calling(home.wyoming_port) as client:
        await client.write_event(AudioChunk(16_000, 2, 1, SECOND).event())
        await client.write_event(AudioStop().event())
        assert (await transcript(client)).text
    assert len(service.script.calls) == 1


@pytest.mark.parametrize("starts", [True, False])
async def test_without_samples_the_transcript_is_empty(
    home: GatewayServer, service: ContractService, starts: bool
) -> None:
    service.script.fail(Failure("empty_audio"))
    async with calling(home.wyoming_port) as client:
        if starts:
            await client.write_event(AudioStart(16_000, 2, 1).event())
        await client.write_event(AudioStop().event())
        found = await transcript(client)
    assert (found.text, found.language) == ("", None)


async def test_transcript_of_silence_is_empty(home: GatewayServer, service: ContractService) -> None:
    service.script.response = one_segment("")
    async with calling(home.wyoming_port) as client:
        await speak(client, SECOND)
        events = await answers(client)
    assert [event.type for event in events] == ["transcript-start", "transcript", "transcript-stop"]


async def test_pings_and_descriptions_are_answered_during_a_transcription(
    home: GatewayServer, service: ContractService
) -> None:
    service.script.hold = asyncio.Event()
    async with calling(home.wyoming_port) as client:
        await speak(client, SECOND)
        await client.write_event(Ping("still there?").event())
        await client.write_event(Describe().event())
        pong, info = await client.read_event(), await client.read_event()
        assert pong is not None and Pong.from_event(pong).text == "still there?"
        assert info is not None and info.type == "info"
        service.script.hold.set()
        assert (await transcript(client)).text


async def test_unknown_events_are_skipped(home: GatewayServer, service: ContractService) -> None:
    async with calling(home.wyoming_port) as client:
        await client.write_event(Event("select-program", {"name": "other"}))
        await client.write_event(Event("played", payload=bytes(1000)))
        await client.write_event(Ping().event())
        pong = await client.read_event()
    assert pong is not None and (pong.type, pong.data) == ("pong", {"text": None})


AUDIO = {"rate": 16_000, "width": 2, "channels": 1}


@pytest.mark.parametrize(
    "changed",
    [
        {"width": 1},
        {"width": 4},
        {"rate": 7999},
        {"rate": 48_001},
        {"rate": 16_000.5},
        {"rate": "16000"},
        {"rate": None},
        {"channels": 0},
        {"channels": 9},
        {"channels": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", ["audio-start", "audio-chunk"])
async def test_other_formats_are_errors(
    home: GatewayServer, service: ContractService, kind: str, changed: dict[str, Any]
) -> None:
    async with calling(home.wyoming_port) as client:
        await client.write_event(Event(kind, {**AUDIO, **changed}, bytes(100)))
        failed = await error(client)
    (name,) = changed
    assert failed.code == "invalid_argument" and kind in failed.text and name in failed.text


@pytest.mark.parametrize("changed", [{"rate": 8000}, {"channels": 2}], ids=str)
async def test_format_must_not_change_within_audio(
    home: GatewayServer, service: ContractService, changed: dict[str, int]
) -> None:
    async with calling(home.wyoming_port) as client:
        await client.write_event(Event("audio-start", AUDIO))
        await client.write_event(Event("audio-chunk", AUDIO, bytes(100)))
        await client.write_event(Event("audio-chunk", {**AUDIO, **changed}, bytes(100)))
        assert (await error(client)).code == "invalid_argument"


async def test_audio_must_not_start_twice(home: GatewayServer, service: ContractService) -> None:
    async with calling(home.wyoming_port) as client:
        for _ in range(2):
            await client.write_event(Event("audio-start", AUDIO))
        assert (await error(client)).code == "invalid_argument"


@pytest.mark.parametrize("options", [{"language": 1}, {"transcript_names": "Anna"}, {"transcript_terms": [1]}], ids=str)
async def test_invalid_options_are_errors(
    home: GatewayServer, service: ContractService, options: dict[str, Any]
) -> None:
    async with calling(home.wyoming_port) as client:
        await client.write_event(Event("transcribe", options))
        failed = await error(client)
    assert failed.code == "invalid_argument" and next(iter(options)) in failed.text


async def test_names_and_terms_are_cut_to_what_the_service_takes(home: GatewayServer, service: ContractService) -> None:
    names, terms = [f"name {i}" for i in range(150)], [f"term {i}" for i in range(150)]
    async with calling(home.wyoming_port) as client:
        await speak(client, SECOND, transcript_names=[*names, "x" * 101], transcript_terms=terms)
        await transcript(client)
    (request,) = service.script.requests
    assert list(request.options.hotwords) == [*names, *terms[:50]]


@pytest.mark.parametrize(
    "type_", ["unauthenticated", "rate_limited", "overloaded", "not_ready", "invalid_argument", "audio_too_long"]
)
async def test_error_of_the_service_is_the_last_event(
    home: GatewayServer, service: ContractService, type_: str
) -> None:
    service.script.fail(Failure(type_, "what happened"))
    async with calling(home.wyoming_port) as client:
        await speak(client, SECOND)
        failed = await error(client)
    assert (failed.code, failed.text) == (type_, "what happened")


async def test_error_reaches_a_caller_that_is_still_speaking(home: GatewayServer, service: ContractService) -> None:
    service.script.status_failure = Failure("unauthenticated", "unknown key")
    async with calling(home.wyoming_port) as client:
        await speak(client, SECOND * 20)
        failed = await error(client)
    assert failed.code == "unauthenticated"


async def test_first_transcript_is_sent_before_the_error_of_the_next(
    home: GatewayServer, service: ContractService
) -> None:
    async with calling(home.wyoming_port) as client:
        await speak(client, SECOND)
        await client.write_event(Event("audio-start", {**AUDIO, "width": 1}))
        assert (await transcript(client)).text
        assert (await error(client)).code == "invalid_argument"


async def test_gateway_without_the_option_has_no_such_port(gateway: GatewayServer) -> None:
    assert gateway.wyoming_port is None
