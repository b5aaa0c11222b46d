"""uvicorn's WebSocket, with what it lacks: callers that are busy and not dead, or dead and not busy, told apart."""

from __future__ import annotations

import asyncio
import logging
import select
from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame
from websockets.http11 import Request

MAX_MESSAGE_BYTES = 2 * 1024 * 1024
"""A message over this is not read: the connection ends with 1009. What the protocol allows is less; see `live`."""

MAX_FRAGMENTS = 4096
"""Of one message: empty ones count towards no size."""

PING_INTERVAL_S = 20.0
PING_TIMEOUT_S = 20.0
"""A caller of whom nothing at all arrives for this long after a ping is gone."""

UNREAD_TIMEOUT_S = 60.0
"""A caller who reads none of what is sent for this long is gone."""

CLOSE_TIMEOUT_S = 5.0
"""How long a caller has to answer the closing of its connection."""

QUIET_S = 0.5
"""A caller who broke the protocol has stopped sending if nothing arrives for so long."""

LOOK_INTERVAL_S = 1.0
"""How often a caller that is not read from is looked at: has it hung up?"""

_HUNG_UP = select.POLLHUP | select.POLLERR | getattr(select, "POLLRDHUP", 0)


class _NoNews(logging.Logger):
    """uvicorn's own log, from warnings up."""

    def __init__(self, name: str) -> None:
        super().__init__(name, logging.WARNING)
        self.parent = logging.getLogger(name)


class GatewayWebSocket(WebSocketsSansIOProtocol):
    """One connection.

    A pong waits behind the audio that was sent before it, and that waits while the service is busy: so any byte that
    arrives is a sign of life, and while nothing is read no sign is asked for. The other end hanging up is then found
    by looking at the socket, which asyncio does only where it reads.

    The application finds the event that is set once the caller is gone as `scope["state"]["gone"]`.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # The lines at `info` hold the query, where people put what they shouldn't; those at `debug`, the messages.
        self.logger = self.conn.logger = _NoNews("uvicorn.error")
        self.conn.debug = False
        self.gone = asyncio.Event()
        self._heard_at = 0.0
        self._dropping_until = 0.0
        self._unread: asyncio.TimerHandle | None = None
        self._looking: asyncio.TimerHandle | None = None

    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        if self.response.status_code == 101:
            # The application's task is made by now and runs after this.
            self.scope["state"]["gone"] = self.gone

    def connection_lost(self, exc: Exception | None) -> None:
        self.gone.set()
        for timer in (self._unread, self._looking):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def handle_close(self, event: Frame) -> None:
        self.gone.set()
        super().handle_close(event)

    def data_received(self, data: bytes) -> None:
        self._heard_at = self.loop.time()
        if self._dropping_until:
            self._drop_on()
        else:
            super().data_received(data)

    def handle_parser_exception(self) -> None:
        """The caller broke the protocol, or sent too much at once: it is told, and what it still sends is dropped.

        Closing at once would make the kernel send a reset, and the caller may never see why.
        """
        if self.close_sent or self.conn.close_sent is None:
            return
        self.gone.set()
        self.stop_keepalive()
        code, reason = self.conn.close_sent.code, self.conn.close_sent.reason
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self.transport.resume_reading()
        self._dropping_until = self.loop.time() + CLOSE_TIMEOUT_S
        self._drop_on()

    def _drop_on(self) -> None:
        """Closes once nothing more arrives, or the time for it is up."""
        if self.close_timer is not None:
            self.close_timer.cancel()
        rest = max(0.0, self._dropping_until - self.loop.time())
        self.close_timer = self.loop.call_later(min(rest, QUIET_S), self.transport.abort)

    def handle_ping(self) -> None:
        if self.writable.is_set():
            super().handle_ping()
        else:
            self.conn.data_to_send()  # a pong nobody reads would wait in memory, and so would the next thousand

    def handle_cont(self, event: Frame) -> None:
        if len(self.frames) < MAX_FRAGMENTS:
            super().handle_cont(event)
        elif not self.close_sent:
            self.conn.send_close(1009)
            self.handle_parser_exception()

    def send_receive_event_to_app(self) -> None:
        if self.curr_msg_data_type == "text" and not self.close_sent and not _is_utf8(b"".join(self.frames)):
            # uvicorn notices it too, but logs a traceback whenever a stranger wants it to.
            self.frames = []
            self.conn.send_close(1007)
            self.handle_parser_exception()
            return
        super().send_receive_event_to_app()
        if self.read_paused and self._looking is None:
            self._looking = self.loop.call_later(LOOK_INTERVAL_S, self._look)

    def _look(self) -> None:
        self._looking = None
        if not self.read_paused or self.transport.is_closing():
            return
        poll = select.poll()
        poll.register(self.transport.get_extra_info("socket").fileno(), _HUNG_UP)
        if poll.poll(0):
            self.transport.abort()
        else:
            self._looking = self.loop.call_later(LOOK_INTERVAL_S, self._look)

    def keepalive_timeout(self) -> None:
        if self.read_paused or self._heard_at > self.ping_sent_at:
            self.pong_timer = None
            self.pending_ping_payload = None
            self.schedule_ping()
            return
        super().keepalive_timeout()
        self.transport.abort()  # closing would wait for what is not yet written, which nobody reads

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._unread is None:
            self._unread = self.loop.call_later(UNREAD_TIMEOUT_S, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    async def send(self, message: Any) -> None:
        await super().send(message)
        if message["type"] == "websocket.close" and self.close_timer is not None:
            self.close_timer.cancel()
            self.close_timer = self.loop.call_later(CLOSE_TIMEOUT_S, self.transport.abort)

    def shutdown(self) -> None:
        """The server stops: a live stream is brought to its end by the application, which is told elsewhere."""
        if not self.handshake_complete or self.close_sent:
            super().shutdown()


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
