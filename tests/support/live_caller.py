"""WebSocket client of `GET /v1/stream`, and the access log's lines about it."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from gateway.http.server import GatewayServer

CONFIG = {"encoding": "linear16", "sample_rate_hertz": 16000}
SECOND = bytes(32000)
END = '{"end": {}}'
FLUSH = '{"flush": {}}'
PATIENCE_S = 60
"""Seconds to wait for an event; far longer than it takes, since other work may share the machine."""


@asynccontextmanager
async def calling(gateway: GatewayServer, **options: Any) -> AsyncIterator[ClientConnection]:
    """Open a WebSocket and send nothing. `options` are those of `websockets.connect`."""
    url = f"ws://127.0.0.1:{gateway.port}/v1/stream"
    patient = {"open_timeout": PATIENCE_S, "ping_interval": None}
    async with connect(url, compression=None, max_size=None, **{**patient, **options}) as socket:
        yield socket


@asynccontextmanager
async def streaming(
    gateway: GatewayServer, request_id: str | None = None, **config: Any
) -> AsyncIterator[ClientConnection]:
    """Open a WebSocket and send its config, `CONFIG` with the fields of `config` added."""
    headers = {} if request_id is None else {"X-Req-Id": request_id}
    async with calling(gateway, additional_headers=headers) as socket:
        await socket.send(json.dumps({**CONFIG, **config}))
        yield socket


async def event(socket: ClientConnection) -> dict[str, Any]:
    """Receive the next event."""
    received: dict[str, Any] = json.loads(await asyncio.wait_for(socket.recv(), PATIENCE_S))
    return received


async def rest(socket: ClientConnection) -> tuple[list[dict[str, Any]], int]:
    """Receive the remaining events and the close code."""
    events = []
    try:
        while True:
            events.append(await event(socket))
    except ConnectionClosed as closed:
        assert closed.rcvd is not None, "the connection was cut, not closed"
        return events, closed.rcvd.code


async def failure(socket: ClientConnection) -> tuple[dict[str, Any], int]:
    """Receive the error that ends the stream, and the close code."""
    events, code = await rest(socket)
    error: dict[str, Any] = events[-1]["error"]
    return error, code


@contextmanager
def access_lines(request_id: str) -> Iterator[asyncio.Queue[dict[str, Any]]]:
    """Lines of the access log about one request. Requests of other tests may end meanwhile."""
    lines: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.__dict__.get("request_id") == request_id:
                lines.put_nowait(record.__dict__)

    logger, handler = logging.getLogger("gateway.access"), Handler()
    before = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        yield lines
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
