"""The caller's end of a connection: what is sent to it."""

from __future__ import annotations

import asyncio
import time

from wyoming.asr import Transcript, TranscriptChunk, TranscriptStart, TranscriptStop
from wyoming.error import Error
from wyoming.event import Eventable, async_write_event

from gateway.http.drain import DRAIN_BYTES, DRAIN_IDLE_S, DRAIN_S
from gateway.settled_text import SettledText
from protos.stt.v1.errors import header_safe
from stt_client.results import Segment
from stt_client.results import Transcript as Result

WRITE_TIMEOUT_S = 30.0
"""Seconds without reading until a caller is disconnected."""


class Caller:
    """Sends events, each whole."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._sending = asyncio.Lock()

    async def send(self, event: Eventable) -> None:
        """Send an event.

        Raises:
            ConnectionError: the caller has disconnected.
            asyncio.TimeoutError: the caller does not read.
        """
        async with self._sending:
            await asyncio.wait_for(async_write_event(event.event(), self._writer), WRITE_TIMEOUT_S)

    async def send_error(self, type_: str, message: str) -> None:
        """Send an error. Raises as `send`.

        Args:
            type_: key of `protos.stt.v1.errors.ERRORS`.
        """
        await self.send(Error(header_safe(message), type_))

    async def drain(self) -> None:
        """Read and drop what the caller still sends, within bounds, so that it receives the last event.

        If a socket is closed while bytes are unread, the kernel sends a reset, which may overtake the event.
        """
        self._writer.write_eof()
        bytes_left, end = DRAIN_BYTES, time.monotonic() + DRAIN_S
        while bytes_left > 0 and (time_left := end - time.monotonic()) > 0:
            dropped = await asyncio.wait_for(self._reader.read(bytes_left), min(time_left, DRAIN_IDLE_S))
            if not dropped:
                return
            bytes_left -= len(dropped)

    async def close(self) -> None:
        """Close the connection, once what was sent has been delivered or the caller has not read it for too long."""
        self._writer.close()
        try:
            await asyncio.wait_for(self._writer.wait_closed(), WRITE_TIMEOUT_S)
        except asyncio.TimeoutError:
            self._writer.transport.abort()
        except ConnectionError:
            pass


class TranscriptEvents:
    """The events of one transcript: start, chunks, the whole, stop."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller
        self._text = SettledText()
        self._started = False

    async def add(self, segments: tuple[Segment, ...]) -> None:
        """Send a chunk with the text of each settled segment. Raises as `Caller.send`."""
        for segment in segments:
            await self._send_chunk(self._text.add(segment))

    async def finish(self, result: Result | None) -> None:
        """Send the rest. Raises as `Caller.send`.

        Args:
            result: None: nothing was said.
        """
        last, text = self._text.finish(result.text if result else "")
        await self._send_chunk(last)
        await self._start()
        await self._caller.send(Transcript(text, language=(result.language if result else "") or None))
        await self._caller.send(TranscriptStop())

    async def _send_chunk(self, text: str) -> None:
        if text:
            await self._start()
            await self._caller.send(TranscriptChunk(text))

    async def _start(self) -> None:
        if not self._started:
            self._started = True
            await self._caller.send(TranscriptStart())
