"""One live stream: what the caller sends becomes a call to the service, and its events go back."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, Literal

from starlette.websockets import WebSocket, WebSocketDisconnect

from gateway.http.errors import Refusal
from gateway.http.headers import request_id_in
from gateway.http.metadata import Metadata, call_metadata
from gateway.live.config import LiveConfig, command_of, config_of
from stt_client import FLUSH, Flush, SttClient

MAX_AUDIO_BYTES = 1024 * 1024
"""Of one message."""

CONFIG_TIMEOUT_S = 10.0
"""How long the first message may take."""

INBOX_BYTES = 256 * 1024
"""Audio that waits here for the service: 8 s at 16 kHz. With more, the caller's messages stay where they are."""


class Inbox:
    """Audio and flushes on their way to the service, in order."""

    def __init__(self, limit: int = INBOX_BYTES) -> None:
        """
        Args:
            limit: bytes; `put` waits while as many or more are here.
        """
        self._limit = limit
        self._items: deque[bytes | Flush] = deque()
        self._bytes = 0
        self._ended = False
        self._news = asyncio.Condition()

    async def put(self, item: bytes | Flush) -> None:
        async with self._news:
            await self._news.wait_for(lambda: self._bytes < self._limit or self._ended)
            if not self._ended:
                self._items.append(item)
                self._bytes += _size(item)
                self._news.notify_all()

    async def end(self) -> None:
        """Nothing follows: what comes later is dropped."""
        async with self._news:
            self._ended = True
            self._news.notify_all()

    async def items(self) -> AsyncIterator[bytes | Flush]:
        while True:
            async with self._news:
                await self._news.wait_for(lambda: self._items or self._ended)
                if not self._items:
                    return
                item = self._items.popleft()
                self._bytes -= _size(item)
                self._news.notify_all()
            yield item


def _size(item: bytes | Flush) -> int:
    # A flush weighs something too: a million of them are not nothing.
    return len(item) + 64 if isinstance(item, bytes) else 64


class LiveSession:
    """What one accepted socket asks for and gets."""

    def __init__(self, socket: WebSocket, client: SttClient, stopping: asyncio.Event) -> None:
        self._socket = socket
        self._client = client
        self._stopping = stopping
        self._inbox = Inbox()
        self._gone: asyncio.Event = socket.scope["state"]["gone"]
        self.ended_by_caller = False
        """The caller has said that nothing follows."""

    async def run(self) -> None:
        """Returns once the service has said all; a caller that goes away cancels the call at once.

        Raises:
            Refusal: the caller broke a rule of the wire.
            SttError: the service, or the way to it, failed.
            WebSocketDisconnect: the caller went away.
        """
        config = await self._config()
        speaking = asyncio.ensure_future(self._speak(config))
        hearing = asyncio.ensure_future(self._hear())
        gone = asyncio.ensure_future(self._gone.wait())
        stopping = asyncio.ensure_future(self._end_when_stopping())
        tasks: tuple[asyncio.Future[Any], ...] = (speaking, hearing, gone, stopping)
        try:
            await asyncio.wait((speaking, hearing, gone), return_when=asyncio.FIRST_COMPLETED)
            if speaking.done():
                speaking.result()
            elif hearing.done():
                hearing.result()
            else:
                raise WebSocketDisconnect(1006)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _config(self) -> LiveConfig:
        first = asyncio.ensure_future(self._receive())
        stopping = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait((first, stopping), timeout=CONFIG_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED)
            if stopping.done():
                raise Refusal("not_ready", "The gateway is stopping; connect again.")
            if not first.done():
                raise Refusal("deadline_exceeded", f"No config came within {CONFIG_TIMEOUT_S:g} s.")
            message = first.result()
        finally:
            first.cancel()
            stopping.cancel()
        if isinstance(message, bytes):
            raise Refusal("invalid_argument", "The first message is to be the config, a text of JSON; audio follows.")
        return config_of(message)

    async def _hear(self) -> None:
        """Takes what the caller sends until it goes away."""
        while True:
            message = await self._receive()
            if self._stopping.is_set():
                continue
            if self.ended_by_caller:
                raise Refusal("invalid_argument", 'Nothing follows {"end": {}}.')
            if isinstance(message, bytes):
                if len(message) > MAX_AUDIO_BYTES:
                    raise Refusal("payload_too_large", f"A message takes at most {MAX_AUDIO_BYTES} bytes of audio.")
                await self._inbox.put(message)
            else:
                await self._obey(command_of(message))

    async def _obey(self, command: Literal["flush", "end"]) -> None:
        if command == "flush":
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

    async def _speak(self, config: LiveConfig) -> None:
        """Passes the service's events on. A caller that reads slowly keeps only its own call waiting."""
        try:
            events = self._client.stream(
                self._inbox.items(),
                encoding=config.encoding,
                interim_results=config.interim_results,
                timeout=None,
                request_id=request_id_in(self._socket.scope),
                metadata=self._metadata(config.api_key),
                **config.options,
            )
        except ValueError as error:  # an option that the SDK knows to be none
            raise Refusal("invalid_argument", str(error)) from None
        async with aclosing(events):
            async for event in events:
                self._socket.scope["state"]["told_by_service"] = True
                await self._socket.send_text(json.dumps(event.as_dict(), ensure_ascii=False))

    def _metadata(self, api_key: str | None) -> Metadata:
        metadata = call_metadata(self._socket)
        if api_key is None:
            return metadata
        others = [pair for pair in metadata if pair[0] != "authorization"]
        return [*others, ("authorization", f"Bearer {api_key}")]
