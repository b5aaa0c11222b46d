"""One live stream: messages of the caller go to a `StreamTranscribe` call, and its events come back."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing

from starlette.websockets import WebSocket

from gateway.http.access_log import set_called, set_logged_by_service
from gateway.http.caller import call_metadata, with_key
from gateway.http.errors import Refusal
from gateway.http.headers import request_id_of
from gateway.http.inbox import Inbox
from gateway.http.sockets import receive, run_until_first
from gateway.live.config import LiveConfig, parse_command, parse_config
from stt_client import FLUSH, Flush, SttClient

MAX_AUDIO_BYTES = 1024 * 1024
"""Bytes of audio in one message."""

CONFIG_TIMEOUT_S = 10.0
"""Seconds within which the config must arrive."""


class LiveSession:
    """The stream on one accepted WebSocket."""

    def __init__(self, socket: WebSocket, client: SttClient, stopping: asyncio.Event) -> None:
        self._socket = socket
        self._client = client
        self._stopping = stopping
        self._inbox: Inbox[bytes | Flush] = Inbox()
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
        await run_until_first(
            self._socket, self._send_events(config), self._receive_messages(), beside=self._end_when_stopping()
        )

    async def _receive_config(self) -> LiveConfig:
        first = asyncio.ensure_future(receive(self._socket))
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
            message = await receive(self._socket)
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

    async def _send_events(self, config: LiveConfig) -> None:
        """Pass the service's events on. A caller that reads slowly delays only its own call."""
        try:
            events = self._client.stream(
                self._inbox.items(),
                encoding=config.encoding,
                interim_results=config.interim_results,
                timeout=None,
                request_id=request_id_of(self._socket.scope),
                metadata=with_key(call_metadata(self._socket), config.api_key),
                **config.options,
            )
        except ValueError as error:  # an option that the SDK rejects
            raise Refusal("invalid_argument", str(error)) from None
        set_called(self._socket.scope)
        async with aclosing(events):
            async for event in events:
                set_logged_by_service(self._socket.scope)
                await self._socket.send_text(json.dumps(event.as_dict(), ensure_ascii=False))
