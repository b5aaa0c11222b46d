"""Calls to a service process: gRPC, REST, live streams, WebSockets."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc
import httpx
from grpc_health.v1 import health_pb2, health_pb2_grpc
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from protos.stt.v1 import speech_pb2_grpc
from stt_server.testing.services import ServiceProcess
from tests.support.services import speech
from tests.support.speech import RATE, Samples
from tests.support.streams import Caller, config, pcm

PATIENCE_S = 60.0
"""Longest wait, in seconds, where a test sets no bound of its own."""

NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVING = health_pb2.HealthCheckResponse.SERVING


@asynccontextmanager
async def http(process: ServiceProcess, **options: Any) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=process.url, timeout=PATIENCE_S, **options) as client:
        yield client


async def post(client: httpx.AsyncClient, audio: bytes | None = None, **fields: str) -> httpx.Response:
    """`POST /v1/transcribe` of a clip of speech."""
    files = {"audio": ("a.wav", speech() if audio is None else audio, "audio/wav")}
    return await client.post("/v1/transcribe", files=files, data=fields)


async def in_flight(client: httpx.AsyncClient) -> int:
    """Number of calls admitted and not yet answered."""
    return int((await client.get("/v1/metrics")).json()["queue"]["in_flight"])


async def until_in_flight(client: httpx.AsyncClient, count: int) -> None:
    async def reached() -> None:
        while await in_flight(client) < count:  # noqa: ASYNC110 - in another process
            await asyncio.sleep(0.02)

    await asyncio.wait_for(reached(), PATIENCE_S)


@asynccontextmanager
async def watched(process: ServiceProcess) -> AsyncIterator[AsyncIterator[int]]:
    """Statuses of a health `Watch`, in order, from when it is read."""
    async with process.channel() as channel:
        call = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), wait_for_ready=True)

        async def states() -> AsyncIterator[int]:
            async for answer in call:
                yield answer.status

        yield states()


@asynccontextmanager
async def streaming(
    process: ServiceProcess, metadata: Sequence[tuple[str, str]] = (), **fields: Any
) -> AsyncIterator[Caller]:
    """Open a live stream over gRPC and send its config."""
    async with process.channel() as channel:
        caller = Caller(speech_pb2_grpc.SpeechToTextStub(channel).StreamTranscribe(metadata=metadata))
        with contextlib.suppress(grpc.aio.AioRpcError):  # refused already: reading says so
            await caller.send(config(**fields))
        yield caller


@asynccontextmanager
async def socket_to(process: ServiceProcess, **fields: Any) -> AsyncIterator[ClientConnection]:
    """Open a WebSocket and send its config."""
    url = f"ws://127.0.0.1:{process.http_port}/v1/stream"
    async with connect(url, compression=None, max_size=None, open_timeout=PATIENCE_S) as socket:
        await socket.send(json.dumps({"encoding": "linear16", "sample_rate_hertz": RATE, **fields}))
        yield socket


async def say(socket: ClientConnection, samples: Samples) -> None:
    data = pcm(samples)
    for at in range(0, len(data), 3200):
        await socket.send(data[at : at + 3200])


async def until_started(socket: ClientConnection) -> None:
    """Wait until speech is reported; earlier events are dropped."""
    while "speech_event" not in json.loads(await asyncio.wait_for(socket.recv(), PATIENCE_S)):
        pass


async def rest(socket: ClientConnection) -> tuple[list[dict[str, Any]], int]:
    """Remaining messages, and the close code."""
    events: list[dict[str, Any]] = []
    try:
        while True:
            events.append(json.loads(await asyncio.wait_for(socket.recv(), PATIENCE_S)))
    except ConnectionClosed as closed:
        assert closed.rcvd is not None, "the connection was cut instead of closed"
        return events, closed.rcvd.code
