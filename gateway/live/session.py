"""One live stream: messages of the caller go to a `StreamTranscribe` call, and its events come back."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect

from gateway.http.access_log import set_logged_by_service
from gateway.http.caller import Metadata, call_metadata
from gateway.http.errors import Refusal
from gateway.http.headers import request_id_of
from gateway.live.config import LiveConfig, parse_command, parse_config
from protos.stt.v1.wire import AUTHORIZATION
from stt_client import FLUSH, Flush, SttClient

MAX_AUDIO_BYTES = 1024 * 1024
"""Bytes of audio in one message."""

CONFIG_TIMEOUT_S = 10.0
"""Seconds within which the config must arrive."""

INBOX_BYTES = 256 * 1024
"""Bytes of audio buffered for the service: 8 s at 16 kHz. Beyond it the caller's messages are not read."""

_ITEM_OVERHEAD_BYTES = 64
"""Counted for each item besides its audio, since flushes use memory too."""


class Inbox:
    """Bounded queue of audio and flushes on their way to the service."""

    def __init__(self, limit: int = INBOX_BYTES) -> None:
        """
        Args:
            limit: bytes; `put` waits while the queue holds this many or more.
        """
        self._limit = limit
        self._items: deque[bytes | Flush] = deque()
        self._bytes = 0
        self._ended = False
        self._changed = asyncio.Condition()

    async def put(self, item: bytes | Flush) -> None:
        """Append an item. Dropped once the queue has ended."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._bytes < self._limit or self._ended)
            if not self._ended:
                self._items.append(item)
                self._bytes += _size(item)
                self._changed.notify_all()

    async def end(self) -> None:
        """Accept no more items; those in the queue are still delivered."""
        async with self._changed:
            self._ended = True
            self._changed.notify_all()

    async def items(self) -> AsyncIterator[bytes | Flush]:
        """Items in order, until the queue has ended and is empty."""
        while True:
            async with self._changed:
                await self._changed.wait_for(lambda: self._items or self._ended)
                if not self._items:
                    return
                item = self._items.popleft()
                self._bytes -= _size(item)
                self._changed.notify_all()
            yield item


def _size(item: bytes | Flush) -> int:
    return _ITEM_OVERHEAD_BYTES + (len(item) if isinstance(item, bytes) else 0)


class LiveSession:
    """The stream on one accepted WebSocket."""

    def __init__(self, socket: WebSocket, client: SttClient, stopping: asyncio.Event) -> None:
        self._socket = socket
        self._client = client
        self._stopping = stopping
        self._inbox = Inbox()
        self._disconnected: asyncio.Event = socket.scope["state"]["disconnected"]
        self.ended_by_caller = False
        """The caller has sent `end`."""

    async def run(self) -> None:
        """Return after the service's last event. The call is cancelled as soon as the caller disconnects.

        Raises:
            Refusal: the caller violated the protocol.
            SttError: the call to the service failed.
            WebSocketDisconnect: the caller disconnected.
        """
        config = await self._receive_config()
        sending = asyncio.ensure_future(self._send_events(config))
        receiving = asyncio.ensure_future(self._receive_messages())
        disconnected = asyncio.ensure_future(self._disconnected.wait())
        stopping = asyncio.ensure_future(self._end_when_stopping())
        tasks: tuple[asyncio.Future[Any], ...] = (sending, receiving, disconnected, stopping)
        try:
            await asyncio.wait((sending, receiving, disconnected), return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                sending.result()
            elif receiving.done():
                receiving.result()
            else:
                raise WebSocketDisconnect(1006)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _receive_config(self) -> LiveConfig:
        first = asyncio.ensure_future(self._receive())
        stopping = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait((first, stopping), timeout=CONFIG_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED)
            if stopping.done():
                raise Refusal("not_ready", "The gateway is stopping; reconnect.")
            if not first.done():
                raise Refusal("deadline_exceeded", f"No config received within {CONFIG_TIMEOUT_S:g} s.")
            message = first.result()
        finally:
            first.cancel()
            stopping.cancel()
        if isinstance(message, bytes):
            raise Refusal("invalid_argument", "Audio before config; send the config first, as a JSON text message.")
        return parse_config(message)

    async def _receive_messages(self) -> None:
        """Pass messages on until the caller disconnects. Raises Refusal for a message that is not allowed."""
        while True:
            message = await self._receive()
            if self._stopping.is_set():
                continue
            if self.ended_by_caller:
                raise Refusal("invalid_argument", 'Message after {"end": {}}; nothing may follow it.')
            if isinstance(message, bytes):
                if len(message) > MAX_AUDIO_BYTES:
                    raise Refusal("payload_too_large", f"Audio message exceeds the limit of {MAX_AUDIO_BYTES} bytes.")
                await self._inbox.put(message)
            elif parse_command(message) == "flush":
                await self._inbox.put(FLUSH)
            else:
                self.ended_by_caller = True
                await self._inbox.end()

    async def _end_when_stopping(self) -> None:
        await self._stopping.wait()
        await self._inbox.end()

    async def _receive(self) -> str | bytes:
        message = await self._socket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", 1006))
        data = message.get("bytes")
        return data if data is not None else str(message.get("text", ""))

    async def _send_events(self, config: LiveConfig) -> None:
        """Pass the service's events on. A caller that reads slowly delays only its own call."""
        try:
            events = self._client.stream(
                self._inbox.items(),
                encoding=config.encoding,
                interim_results=config.interim_results,
                timeout=None,
                request_id=request_id_of(self._socket.scope),
                metadata=self._metadata(config.api_key),
                **config.options,
            )
        except ValueError as error:  # an option that the SDK rejects
            raise Refusal("invalid_argument", str(error)) from None
        async with aclosing(events):
            async for event in events:
                set_logged_by_service(self._socket.scope)
                await self._socket.send_text(json.dumps(event.as_dict(), ensure_ascii=False))

    def _metadata(self, api_key: str | None) -> Metadata:
        metadata = call_metadata(self._socket)
        if api_key is None:
            return metadata
        others = [pair for pair in metadata if pair[0] != AUTHORIZATION]
        return [*others, (AUTHORIZATION, f"Bearer {api_key}")]
