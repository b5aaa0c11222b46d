"""Callers of the Wyoming protocol: the official package's client, in the order of Home Assistant."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from wyoming.asr import Transcribe, Transcript, TranscriptChunk
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.client import AsyncTcpClient
from wyoming.error import Error
from wyoming.event import Event

PATIENCE_S = 60
"""Seconds to wait for an event; far longer than it takes, since other work may share the machine."""

CHUNK_BYTES = 2048
"""As Home Assistant sends them."""

LAST = ("transcript-stop", "error")


@asynccontextmanager
async def calling(port: int | None) -> AsyncIterator[AsyncTcpClient]:
    """Connect to the port of the protocol on 127.0.0.1."""
    assert port is not None, "the Wyoming protocol is off"
    async with AsyncTcpClient("127.0.0.1", port, read_timeout=PATIENCE_S) as client:
        yield client


async def speak(client: AsyncTcpClient, audio: bytes, rate: int = 16_000, channels: int = 1, **options: Any) -> None:
    """Send 16-bit audio with its options, from `transcribe` to `audio-stop`."""
    await client.write_event(Transcribe(**options).event())
    await client.write_event(AudioStart(rate, 2, channels).event())
    for first in range(0, len(audio), CHUNK_BYTES):
        await client.write_event(AudioChunk(rate, 2, channels, audio[first : first + CHUNK_BYTES]).event())
    await client.write_event(AudioStop().event())


async def answers(client: AsyncTcpClient) -> list[Event]:
    """Events up to the end of a transcript, an error, or the end of the connection."""
    events = []
    while (event := await client.read_event()) is not None:
        events.append(event)
        if event.type in LAST:
            break
    return events


async def transcript(client: AsyncTcpClient) -> Transcript:
    """The transcript among the answers. Its chunks, put together, are its text."""
    events = await answers(client)
    types = [event.type for event in events]
    assert types[0] == "transcript-start", events
    assert types[-2:] == ["transcript", "transcript-stop"], events
    assert set(types[1:-2]) <= {"transcript-chunk"}, events
    found = Transcript.from_event(events[-2])
    assert "".join(TranscriptChunk.from_event(event).text for event in events[1:-2]) == found.text
    return found


async def error(client: AsyncTcpClient) -> Error:
    """The error, which is the last event of the connection."""
    events = await answers(client)
    assert events and events[-1].type == "error", events
    assert await asyncio.wait_for(client.read_event(), PATIENCE_S) is None
    return Error.from_event(events[-1])
