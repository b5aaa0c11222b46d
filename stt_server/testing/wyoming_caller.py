"""A caller of the Wyoming protocol: the official package's client, in Home Assistant's order of events."""

from __future__ import annotations

from collections.abc import AsyncIterable
from typing import Any

from wyoming.asr import Transcribe
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.client import AsyncTcpClient
from wyoming.event import Event

CHUNK_BYTES = 2048
"""As Home Assistant sends them."""

LAST = ("transcript-stop", "error")
"""Types of the events that end an answer."""


async def speak(
    client: AsyncTcpClient, audio: bytes | AsyncIterable[bytes], rate: int = 16_000, channels: int = 1, **options: Any
) -> None:
    """Send 16-bit audio, from `transcribe` to `audio-stop`.

    Args:
        options: fields of `wyoming.asr.Transcribe`.
    """
    await client.write_event(Transcribe(**options).event())
    await client.write_event(AudioStart(rate, 2, channels).event())
    async for piece in _pieces(audio) if isinstance(audio, bytes) else audio:
        await client.write_event(AudioChunk(rate, 2, channels, piece).event())
    await client.write_event(AudioStop().event())


async def _pieces(audio: bytes) -> AsyncIterable[bytes]:
    for first in range(0, len(audio), CHUNK_BYTES):
        yield audio[first : first + CHUNK_BYTES]


async def answers(client: AsyncTcpClient) -> list[Event]:
    """Events up to the end of a transcript, an error, or the end of the connection."""
    events = []
    while (event := await client.read_event()) is not None:
        events.append(event)
        if event.type in LAST:
            break
    return events
