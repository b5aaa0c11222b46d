"""TCP server of the Wyoming protocol, beside the HTTP server and in front of the same service."""

from __future__ import annotations

import asyncio
import socket

from gateway.http.refusals import Refusals
from gateway.listening import BACKLOG, listen
from gateway.options import GatewayOptions, WyomingOptions
from gateway.wyoming.access_log import AccessLog
from gateway.wyoming.caller import Caller
from gateway.wyoming.calls import ServiceCalls, UseClient
from gateway.wyoming.connection import Connection
from gateway.wyoming.framing import READER_LIMIT

MAX_CONNECTIONS = 32
"""Each may hold one recording of the largest size. Over this limit, the connection that has been idle for longest is
closed; if all have audio, the new one gets the error `overloaded`."""

MAX_REFUSALS = 32
"""Connections over the limit that are being refused at a time. Further ones are closed without an error."""

LAST_EVENT_S = 1.0
"""Seconds to send the last event after the grace period of a stopping gateway."""


class WyomingServer:
    """Accepts connections and bounds their number."""

    def __init__(
        self, options: GatewayOptions, wyoming: WyomingOptions, use_client: UseClient, refusals: Refusals
    ) -> None:
        self._options = options
        self.api_key = wyoming.api_key
        """Key of new calls; empty: none."""
        self._use_client = use_client
        self._log = AccessLog(refusals, service_logs_here=options.service_logs_here)
        self._connections: dict[asyncio.Task[None], Connection] = {}
        self._refusals: set[asyncio.Task[None]] = set()
        self._listener: socket.socket | None = None
        self._server: asyncio.Server | None = None
        self.port = wyoming.port
        """Port that it listens on, once bound."""

    async def bind(self) -> None:
        """Open the port. Raises PortError."""
        self._listener = await listen("Wyoming", self._options.host, self.port)
        self.port = self._listener.getsockname()[1]

    async def start(self) -> None:
        """Accept connections on the port that `bind` opened."""
        self._server = await asyncio.start_server(
            self._accept, sock=self._listener, limit=READER_LIMIT, backlog=BACKLOG
        )

    async def stop(self, grace_s: float) -> None:
        """Refuse new connections, finish those with audio for at most `grace_s` seconds, then close."""
        if self._server is not None:
            self._server.close()
        elif self._listener is not None:
            self._listener.close()
        for connection in self._connections.values():
            connection.stop()
        if not (tasks := {*self._connections, *self._refusals}):
            return
        _, late = await asyncio.wait(tasks, timeout=grace_s)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late, timeout=LAST_EVENT_S)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = writer.get_extra_info("peername")
        address = peer[0] if peer else "unknown"
        calls = ServiceCalls(self._use_client, lambda: self.api_key, address, self._options.default_timeout_s)
        connection = Connection(reader, Caller(reader, writer), calls, self._log, self._options.body_timeout_s)
        if self._has_room():
            task = asyncio.create_task(connection.run(), name="wyoming connection")
            self._connections[task] = connection
            task.add_done_callback(lambda task: self._connections.pop(task, None))
        elif len(self._refusals) < MAX_REFUSALS:
            task = asyncio.create_task(connection.refuse("overloaded", "Too many connections; retry later."))
            self._refusals.add(task)
            task.add_done_callback(self._refusals.discard)
        else:
            writer.transport.abort()

    def _has_room(self) -> bool:
        """Whether one more connection may be served; closes an idle one for it if need be."""
        active = [connection for connection in self._connections.values() if not connection.is_stopping]
        if len(active) < MAX_CONNECTIONS:
            return True
        idle = [connection for connection in active if connection.is_idle]
        if idle:
            min(idle, key=lambda connection: connection.idle_since).stop()
        return bool(idle)
