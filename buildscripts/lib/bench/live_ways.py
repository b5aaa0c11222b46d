"""The ways to stream live audio to a service: gRPC, its own WebSocket, and OpenAI's Realtime sessions."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from websockets.asyncio.client import connect

from buildscripts.lib.load.plain_clients import RATE, error_of
from buildscripts.lib.load.realtime_client import COMPLETED, realtime_events
from stt_client import AudioFormat, Final, Interim, SpeechEvent, SttClient
from stt_client.results import Routing, Timings, Transcript

DELTA = "conversation.item.input_audio_transcription.delta"
FORMAT = AudioFormat("linear16", RATE)

Event = SpeechEvent | Interim | Final


@dataclass(frozen=True)
class LiveTarget:
    """A service, and how its streams are to be recognized."""

    client: SttClient
    url: str
    """`http://host:port`; only gRPC does without."""
    endpoint_silence: float
    """Seconds."""
    language: str | None
    """None: detected."""


Way = Callable[[LiveTarget, AsyncIterator[bytes]], AsyncGenerator[Event, None]]
"""Streams chunks of mono 16-bit audio at 16 kHz, and yields the events."""


async def by_grpc(target: LiveTarget, pcm: AsyncIterator[bytes]) -> AsyncGenerator[Event, None]:
    events = target.client.stream(
        pcm, encoding=FORMAT, endpoint_silence=target.endpoint_silence, language=target.language
    )
    async for event in events:
        yield event


async def by_websocket(target: LiveTarget, pcm: AsyncIterator[bytes]) -> AsyncGenerator[Event, None]:
    config = {"encoding": "linear16", "sample_rate_hertz": RATE, "endpoint_silence": target.endpoint_silence}
    async with connect(target.url.replace("http", "ws", 1) + "/v1/stream", compression=None) as socket:

        async def speak() -> None:
            await socket.send(json.dumps({**config, "language": target.language}))
            async for piece in pcm:
                await socket.send(piece)
            await socket.send('{"end": {}}')

        speaking = asyncio.create_task(speak())
        try:
            async for message in socket:
                yield _of_websocket(json.loads(message))
        finally:
            speaking.cancel()
            await asyncio.gather(speaking, return_exceptions=True)


def _of_websocket(event: Mapping[str, Any]) -> Event:
    if "error" in event:
        raise error_of(event["error"], "not an error of the table")
    processed = event["audio_processed"]
    if "interim" in event:
        return Interim(**event["interim"], audio_processed=processed)
    if "final" in event:
        result = event["final"]["result"]
        return Final(event["final"]["utterance"], _transcript(result["text"], result["routing"]), processed)
    speech = event["speech_event"]
    return SpeechEvent(speech["type"].lower(), speech["offset"], processed)


async def by_realtime(target: LiveTarget, pcm: AsyncIterator[bytes]) -> AsyncGenerator[Event, None]:
    vad = {"type": "server_vad", "silence_duration_ms": round(target.endpoint_silence * 1000)}
    settings = {"turn_detection": vad, "transcription": {"language": target.language}}
    numbers: dict[str, int] = {}
    async for event in realtime_events(target.url, pcm, settings, {}):
        kind, number = event["type"], numbers.setdefault(event.get("item_id", ""), len(numbers) - 1)
        if kind == "input_audio_buffer.speech_started":
            yield SpeechEvent("started", event["audio_start_ms"] / 1000, 0.0)
        elif kind == "input_audio_buffer.speech_stopped":
            yield SpeechEvent("ended", event["audio_end_ms"] / 1000, 0.0)
        elif kind == DELTA:
            yield Interim(number, event["delta"], "", "", 0.0)
        elif kind == COMPLETED and event["transcript"]:
            yield Final(number, _transcript(event["transcript"], event["routing"]), 0.0)


def _transcript(text: str, routing: Mapping[str, Any]) -> Transcript:
    """What the report needs of a transcript."""
    return Transcript("", text, "", None, 0.0, (), Routing(**routing), Timings(0.0, 0.0, 0.0, 0.0))


WAYS: Mapping[str, Way] = {"grpc": by_grpc, "websocket": by_websocket, "realtime": by_realtime}
