"""The gateway as a server inside the caller's event loop."""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
from collections.abc import Iterator

import uvicorn

from gateway.app import create_app
from gateway.http.hot_swap import HotSwap
from gateway.http.protocol import GatewayProtocol
from gateway.http.refusals import Refusals
from gateway.http.tls import ServerCertificate
from gateway.http.websocket import MAX_MESSAGE_BYTES as MAX_WEBSOCKET_BYTES
from gateway.http.websocket import PING_INTERVAL_S, PING_TIMEOUT_S, GatewayWebSocket
from gateway.listening import BACKLOG, listen
from gateway.openapi import VERSION
from gateway.options import GatewayOptions
from gateway.wyoming.server import WyomingServer
from protos.stt.v1.spans import span_sink
from stt_client import SttClient, Tls

STATUS_TIMEOUT_S = 10.0
"""Deadline of GetStatus, GetMetrics and CheckAdmission, in seconds."""

KEEP_ALIVE_S = 75
"""Whole seconds that a connection may stay idle. Proxies and load balancers reuse connections for up to 60 s; closing
them earlier would now and then lose a request."""

MAX_MESSAGE_BYTES = 2**31 - 1
"""No limit of the channel's own: the gateway enforces the service's upload limit."""


class GatewayServer:
    """HTTP server in front of one service. Installs neither signal handlers nor logging.

    Raises:
        ValueError: the target is invalid, or spans are wanted and the extra `otel` isn't installed.
    """

    def __init__(self, options: GatewayOptions) -> None:
        self._options = options
        self._spans = span_sink(options.otlp_endpoint, "stt-gateway", VERSION)
        self._stopping = asyncio.Event()
        self._refusals = Refusals(lambda: self._app.client())
        self._app = HotSwap(
            lambda client: create_app(client, options, self._stopping, self._refusals, self._spans),
            self._connect(options.tls),
        )
        self._wyoming: WyomingServer | None = None
        if options.wyoming is not None:
            self._wyoming = WyomingServer(options, options.wyoming, self._app.client, self._refusals)
        self._certificate: ServerCertificate | None = None
        self._server: _Server | None = None
        self._task: asyncio.Task[None] | None = None
        self.port = options.port
        """Port that it listens on, once started."""

    async def start(self) -> None:
        """Start to listen. The service need not be running yet.

        Raises:
            OSError: a port is in use, the host is unknown, or a TLS file is unreadable; the text says which.
        """
        listener = await listen("HTTP", self._options.host, self._options.port)
        try:
            if self._wyoming is not None:
                await self._wyoming.bind()
            self.port = listener.getsockname()[1]
            if self._options.http_tls is not None:
                self._certificate = ServerCertificate(self._options.http_tls)
            self._server = _Server(_config(self._app, self._certificate))
            self._task = asyncio.create_task(self._server.serve(sockets=[listener]), name="gateway")
            ready = asyncio.create_task(self._server.listening.wait())
            await asyncio.wait((self._task, ready), return_when=asyncio.FIRST_COMPLETED)
            ready.cancel()
            if self._task.done():
                await self._task
                raise RuntimeError("the gateway ended while it started")
            if self._wyoming is not None:
                await self._wyoming.start()
        except BaseException:
            listener.close()
            if self._wyoming is not None:
                await self._wyoming.stop(0)
            await self._app.close()
            raise

    @property
    def wyoming_port(self) -> int | None:
        """Port of the Wyoming protocol, once started; None: it is off."""
        return None if self._wyoming is None else self._wyoming.port

    def use_wyoming_key(self, api_key: str) -> None:
        """Make the calls of the Wyoming protocol with another key from now on; empty: with none."""
        if self._wyoming is not None:
            self._wyoming.api_key = api_key

    def announce_shutdown(self) -> None:
        """Send `Connection: close` with each response from now on.

        Call it a while before `stop`, so that few callers are about to reuse a connection as it is closed.
        """
        self._app.announce_shutdown()

    def renew_certificate(self) -> None:
        """Read the TLS files again, for new connections.

        Raises:
            OSError: they are unusable; the previous certificate stays in use.
        """
        if self._certificate is not None:
            self._certificate.renew()

    def reconnect(self, tls: Tls | None) -> None:
        """Use a connection with `tls` for new requests; those in flight finish on the previous one.

        Raises:
            ValueError: `tls` cannot be used with the target.
        """
        self._app.swap(self._connect(tls))

    def _connect(self, tls: Tls | None) -> SttClient:
        target = self._options.target
        return SttClient(target, tls=tls, timeout=STATUS_TIMEOUT_S, max_message_bytes=MAX_MESSAGE_BYTES)

    async def stop(self, grace_s: float) -> None:
        """Refuse new connections, finish requests in flight for at most `grace_s` seconds, then close.

        Live streams receive no more audio and get the final of their last utterance.
        """
        if self._server is None or self._task is None:
            return
        # uvicorn waits in whole seconds.
        self._server.config.timeout_graceful_shutdown = max(1, math.ceil(grace_s))
        self._app.announce_shutdown()
        self._stopping.set()
        self._server.should_exit = True
        await asyncio.gather(self._task, *(() if self._wyoming is None else (self._wyoming.stop(grace_s),)))
        if cut_off := set(self._server.server_state.tasks):
            await asyncio.wait(cut_off, timeout=1)
        await self._refusals.close()
        await self._app.close()
        if self._spans is not None:
            await asyncio.to_thread(self._spans.close)


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the entry point."""
        yield


def _config(app: HotSwap, certificate: ServerCertificate | None) -> uvicorn.Config:
    config = uvicorn.Config(
        app,
        http=GatewayProtocol,
        ws=GatewayWebSocket,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_S,
        ws_max_size=MAX_WEBSOCKET_BYTES,
        ws_ping_interval=PING_INTERVAL_S,
        ws_ping_timeout=PING_TIMEOUT_S,
        ws_per_message_deflate=False,  # audio does not compress, and events are small
        lifespan="off",
        log_config=None,
        # The service decides which proxies to trust (TRUSTED_PROXIES).
        proxy_headers=False,
        forwarded_allow_ips="",
        server_header=False,
        workers=1,
    )
    config.load()
    if certificate is not None:
        config.ssl = certificate.context
    return config
