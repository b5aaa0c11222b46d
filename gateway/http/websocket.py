"""uvicorn's WebSocket protocol with limits, and with detection of lost callers that also works under back-pressure.

It builds on undocumented parts of uvicorn (`curr_msg_data_type`, `pong_timer`, `read_paused`, ...), so setup.cfg pins
uvicorn's minor version; tests/gateway/test_uvicorn_internals.py checks that they are there.
"""

from __future__ import annotations

import asyncio
import logging
import select
from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame
from websockets.http11 import Request

MAX_MESSAGE_BYTES = 2 * 1024 * 1024
"""A larger message closes the connection with 1009 unread. `live.session.MAX_AUDIO_BYTES` is the protocol's limit."""

MAX_FRAGMENTS = 4096
"""Fragments of one message. Empty fragments would otherwise be unlimited."""

PING_INTERVAL_S = 20.0
"""Seconds between pings."""
PING_TIMEOUT_S = 20.0
"""Seconds after a ping without any byte from the caller until it counts as lost."""

UNREAD_TIMEOUT_S = 60.0
"""Seconds without reading until a caller is disconnected."""

CLOSE_TIMEOUT_S = 5.0
"""Seconds that a caller has to answer a close frame."""

QUIET_S = 0.5
"""Seconds without a byte after which a caller that violated the protocol counts as done sending."""

HANGUP_CHECK_INTERVAL_S = 1.0
"""Seconds between checks whether a caller has hung up while its connection is not being read."""

_HUNG_UP = select.POLLHUP | select.POLLERR | getattr(select, "POLLRDHUP", 0)


class _WarningsOnly(logging.Logger):
    """Passes warnings and errors on to the logger of the same name."""

    def __init__(self, name: str) -> None:
        super().__init__(name, logging.WARNING)
        self.parent = logging.getLogger(name)


class GatewayWebSocket(WebSocketsSansIOProtocol):
    """One WebSocket.

    A pong is queued behind the audio sent before it, which is not read while the service is busy. Therefore any
    received byte counts as a sign of life, and no ping times out while reading is paused. asyncio notices a hang-up
    only while it reads, so meanwhile the socket is polled for it.

    `scope["state"]["disconnected"]` is an event that is set once the caller has disconnected.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # At `info` uvicorn logs the query, which may hold secrets; at `debug`, the messages.
        self.logger = self.conn.logger = _WarningsOnly("uvicorn.error")
        self.conn.debug = False
        self.caller_disconnected = asyncio.Event()
        self._received_at = 0.0
        self._drain_until = 0.0
        self._unread_timer: asyncio.TimerHandle | None = None
        self._hangup_timer: asyncio.TimerHandle | None = None

    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        if self.response.status_code == 101:
            # The application's task exists by now, but runs only later.
            self.scope["state"]["disconnected"] = self.caller_disconnected

    def connection_lost(self, exc: Exception | None) -> None:
        self.caller_disconnected.set()
        for timer in (self._unread_timer, self._hangup_timer):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def handle_close(self, event: Frame) -> None:
        self.caller_disconnected.set()
        super().handle_close(event)

    def data_received(self, data: bytes) -> None:
        self._received_at = self.loop.time()
        if self._drain_until:
            self._close_once_quiet()
        else:
            super().data_received(data)

    def handle_parser_exception(self) -> None:
        """Send the close frame after a protocol violation, then drop what still arrives.

        If the socket were closed at once, the kernel would send a reset and the caller might never see the reason.
        """
        if self.close_sent or self.conn.close_sent is None:
            return
        self.caller_disconnected.set()
        self.stop_keepalive()
        code, reason = self.conn.close_sent.code, self.conn.close_sent.reason
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self.transport.resume_reading()
        self._drain_until = self.loop.time() + CLOSE_TIMEOUT_S
        self._close_once_quiet()

    def _close_once_quiet(self) -> None:
        """Close after `QUIET_S` without a byte, `CLOSE_TIMEOUT_S` after the violation at the latest."""
        if self.close_timer is not None:
            self.close_timer.cancel()
        time_left = max(0.0, self._drain_until - self.loop.time())
        self.close_timer = self.loop.call_later(min(time_left, QUIET_S), self.transport.abort)

    def handle_ping(self) -> None:
        if self.writable.is_set():
            super().handle_ping()
        else:
            self.conn.data_to_send()  # drop the pong: unread pongs would pile up in memory

    def handle_cont(self, event: Frame) -> None:
        if len(self.frames) < MAX_FRAGMENTS:
            super().handle_cont(event)
        elif not self.close_sent:
            self.conn.send_close(1009)
            self.handle_parser_exception()

    def send_receive_event_to_app(self) -> None:
        if self.curr_msg_data_type == "text" and not self.close_sent and not _is_utf8(b"".join(self.frames)):
            # uvicorn checks it too, but logs a traceback each time.
            self.frames = []
            self.conn.send_close(1007)
            self.handle_parser_exception()
            return
        super().send_receive_event_to_app()
        if self.read_paused and self._hangup_timer is None:
            self._hangup_timer = self.loop.call_later(HANGUP_CHECK_INTERVAL_S, self._check_hangup)

    def _check_hangup(self) -> None:
        self._hangup_timer = None
        if not self.read_paused or self.transport.is_closing():
            return
        poll = select.poll()
        poll.register(self.transport.get_extra_info("socket").fileno(), _HUNG_UP)
        if poll.poll(0):
            self.transport.abort()
        else:
            self._hangup_timer = self.loop.call_later(HANGUP_CHECK_INTERVAL_S, self._check_hangup)

    def keepalive_timeout(self) -> None:
        if self.read_paused or self._received_at > self.ping_sent_at:
            self.pong_timer = None
            self.pending_ping_payload = None
            self.schedule_ping()
            return
        super().keepalive_timeout()
        self.transport.abort()  # `close` would wait for unwritten data

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._unread_timer is None:
            self._unread_timer = self.loop.call_later(UNREAD_TIMEOUT_S, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._unread_timer is not None:
            self._unread_timer.cancel()
            self._unread_timer = None

    async def send(self, message: Any) -> None:
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and self.close_sent:
            self.handshake_complete = True  # refused; uvicorn would log that there was no answer
        if message["type"] == "websocket.close" and self.close_timer is not None:
            self.close_timer.cancel()
            self.close_timer = self.loop.call_later(CLOSE_TIMEOUT_S, self.transport.abort)

    def shutdown(self) -> None:
        """Called as the server stops. The application ends open streams itself, by its event `stopping`."""
        if not self.handshake_complete or self.close_sent:
            super().shutdown()


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
