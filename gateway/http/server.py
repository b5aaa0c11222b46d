"""The gateway as a server inside the caller's event loop."""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
from collections.abc import Iterator

import uvicorn

from gateway.app import create_app
from gateway.http.certificate import Certificate
from gateway.http.front import Front
from gateway.http.protocol import GatewayProtocol
from gateway.http.websocket import MAX_MESSAGE_BYTES as MAX_WEBSOCKET_BYTES
from gateway.http.websocket import PING_INTERVAL_S, PING_TIMEOUT_S, GatewayWebSocket
from gateway.options import GatewayOptions, HttpTls
from stt_client import SttClient, Tls

__all__ = ["GatewayOptions", "GatewayServer", "HttpTls"]


STATUS_TIMEOUT_S = 10.0
"""Longest wait for what a service knows at once: its status and its metrics. Seconds."""

KEEP_ALIVE_S = 75
"""Whole seconds that a connection may wait for its next request. Proxies and load balancers use one again within 60;
whoever closes it sooner loses a request now and then."""

BACKLOG = 256
"""Connections that wait to be taken. asyncio takes as many at a time, before it does anything else."""

MAX_MESSAGE_BYTES = 2**31 - 1
"""The gateway counts what callers send against the service's own limit; the channel sets none besides."""


class GatewayServer:
    """REST in front of one service.

    It installs no signal handlers and no logging: whoever starts it owns both.

    Raises:
        ValueError: the target is none.
    """

    def __init__(self, options: GatewayOptions) -> None:
        self._options = options
        self._stopping = asyncio.Event()
        self._front = Front(lambda client: create_app(client, options, self._stopping), self._connect(options.tls))
        self._certificate: Certificate | None = None
        self._server: _Server | None = None
        self._task: asyncio.Task[None] | None = None
        self.port = options.port
        """Where it listens, once started."""

    async def start(self) -> None:
        """Listens. The service need not be up yet.

        Raises:
            OSError: the port is taken, the host is unknown, or a TLS file can't be read; the text says which.
        """
        listener = await _bind(self._options.host, self._options.port)
        try:
            self.port = listener.getsockname()[1]
            if self._options.http_tls is not None:
                self._certificate = Certificate(self._options.http_tls)
            self._server = _Server(_config(self._front, self._certificate))
            self._task = asyncio.create_task(self._server.serve(sockets=[listener]), name="gateway")
            ready = asyncio.create_task(self._server.listening.wait())
            await asyncio.wait((self._task, ready), return_when=asyncio.FIRST_COMPLETED)
            ready.cancel()
            if self._task.done():
                await self._task
                raise RuntimeError("the gateway ended while it started")
        except BaseException:
            listener.close()
            await self._front.close()
            raise

    def take_leave(self) -> None:
        """Tells callers with each answer from now on that their next request belongs on another connection.

        To be called a while before `stop`, so that few are about to use a connection in the moment that it is closed.
        """
        self._front.take_leave()

    def renew_certificate(self) -> None:
        """Shows callers who connect from now on what is in the TLS files now.

        Raises:
            OSError: they can't be used; what was shown before still is.
        """
        if self._certificate is not None:
            self._certificate.renew()

    def renew_connection(self, tls: Tls | None) -> None:
        """Calls the service with `tls` from now on; requests in flight end on the connection that they have.

        Raises:
            ValueError: it can't be used with the target.
        """
        self._front.turn(self._connect(tls))

    def _connect(self, tls: Tls | None) -> SttClient:
        target = self._options.target
        return SttClient(target, tls=tls, timeout=STATUS_TIMEOUT_S, max_message_bytes=MAX_MESSAGE_BYTES)

    async def stop(self, grace_s: float) -> None:
        """Takes no more connections, finishes the requests in flight, at most `grace_s` seconds, and ends.

        A live stream hears no more, and is told what it has said so far.
        """
        if self._server is None or self._task is None:
            return
        # uvicorn waits in whole seconds.
        self._server.config.timeout_graceful_shutdown = max(1, math.ceil(grace_s))
        self._front.take_leave()
        self._stopping.set()
        self._server.should_exit = True
        await self._task
        if cut_off := set(self._server.server_state.tasks):
            await asyncio.wait(cut_off, timeout=1)
        await self._front.close()


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leaves signals to the entry point."""
        yield


def _config(front: Front, certificate: Certificate | None) -> uvicorn.Config:
    config = uvicorn.Config(
        front,
        http=GatewayProtocol,
        ws=GatewayWebSocket,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_S,
        ws_max_size=MAX_WEBSOCKET_BYTES,
        ws_ping_interval=PING_INTERVAL_S,
        ws_ping_timeout=PING_TIMEOUT_S,
        ws_per_message_deflate=False,  # audio doesn't shrink, and events are small
        lifespan="off",
        log_config=None,
        # The service decides which proxies to believe.
        proxy_headers=False,
        forwarded_allow_ips="",
        server_header=False,
        workers=1,
    )
    config.load()
    if certificate is not None:
        config.ssl = certificate.context
    return config


async def _bind(host: str, port: int) -> socket.socket:
    """A listening socket; IPv4 and IPv6 for `::`."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, kind, protocol, _, address = found[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind(address)
        # Here and not later: two sockets with SO_REUSEADDR may share a port until one listens.
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener
