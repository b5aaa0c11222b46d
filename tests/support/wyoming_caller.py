"""Connections to the Wyoming port, and checks of the answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from wyoming.asr import Transcript, TranscriptChunk
from wyoming.client import AsyncTcpClient
from wyoming.error import Error

from stt_server.testing.wyoming_caller import answers

PATIENCE_S = 60
"""Seconds to wait for an event; far longer than it takes, since other work may share the machine."""


@asynccontextmanager
async def calling(port: int | None) -> AsyncIterator[AsyncTcpClient]:
    """Connect to the port of the protocol on 127.0.0.1."""
    assert port is not None, "the Wyoming protocol is off"
    async with AsyncTcpClient("127.0.0.1", port, read_timeout=PATIENCE_S) as client:
        yield client


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
