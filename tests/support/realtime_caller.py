"""Caller of `GET /v1/realtime`, in the protocol's own messages."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.support.letter_stream import RATE, speech
from tests.support.live_caller import PATIENCE_S

Event = dict[str, Any]

TRANSCRIPTION = "conversation.item.input_audio_transcription"
LETTERS = {"type": "audio/pcm", "rate": RATE}
"""Format of the speech of `letter_stream`."""


@dataclass
class RealtimeCaller:
    """One session."""

    socket: ClientConnection
    events: list[Event] = field(default_factory=list)
    """Received so far."""

    async def send(self, type_: str, **fields: Any) -> None:
        await self.socket.send(json.dumps({"type": type_, **fields}))

    async def update(self, **audio_input: Any) -> Event:
        """Update the session's `audio.input`; return what is in force."""
        await self.send("session.update", session={"type": "transcription", "audio": {"input": audio_input}})
        updated: Event = (await self.next("session.updated"))["session"]["audio"]["input"]
        return updated

    async def append(self, audio: bytes) -> None:
        await self.send("input_audio_buffer.append", audio=base64.b64encode(audio).decode())

    async def say(self, text: str) -> None:
        """Append letters; a space is 0.1 s of silence."""
        await self.append(speech(text))

    async def commit(self, **fields: Any) -> None:
        await self.send("input_audio_buffer.commit", **fields)

    async def receive(self) -> Event:
        """The next event."""
        event: Event = json.loads(await asyncio.wait_for(self.socket.recv(), PATIENCE_S))
        self.events.append(event)
        return event

    async def next(self, type_: str) -> Event:
        """Wait for an event of a type; earlier ones are only recorded."""
        while (event := await self.receive())["type"] != type_:
            assert event["type"] != "error" or type_ == "error", event
        return event

    async def completed(self) -> Event:
        return await self.next(f"{TRANSCRIPTION}.completed")

    async def closed(self) -> int:
        """Receive to the end; return the close code."""
        try:
            while True:
                await self.receive()
        except ConnectionClosed as closed:
            assert closed.rcvd is not None, "the connection was cut, not closed"
            return closed.rcvd.code

    def of(self, *types: str) -> list[Event]:
        """The events of some types, in order."""
        return [event for event in self.events if event["type"] in types]

    def deltas(self, item_id: str) -> str:
        """Text of an item's deltas."""
        return "".join(event["delta"] for event in self.of(f"{TRANSCRIPTION}.delta") if event["item_id"] == item_id)

    @property
    def kinds(self) -> list[str]:
        """Types of all events, without their common beginnings."""
        return [event["type"].removeprefix(f"{TRANSCRIPTION}.") for event in self.events]


@asynccontextmanager
async def realtime(
    port: int | None, *, format_: Event | None = LETTERS, **options: Any
) -> AsyncIterator[RealtimeCaller]:
    """Open a session.

    Args:
        format_: of the audio; None: send no update.
        options: of `websockets.connect`, and further settings of `audio.input` in `settings`.
    """
    settings = options.pop("settings", {})
    patient = {"open_timeout": PATIENCE_S, "ping_interval": None, "compression": None, "max_size": None}
    async with connect(f"ws://127.0.0.1:{port}/v1/realtime?intent=transcription", **{**patient, **options}) as socket:
        caller = RealtimeCaller(socket)
        created = await caller.receive()
        assert created["type"] == "session.created"
        if format_ is not None:
            await caller.update(format=format_, **settings)
        yield caller
