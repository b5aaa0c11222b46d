"""Health watch against servers that end it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from stt_client import SttClient, health

WAIT_S = 20


class EndingHealth(health_pb2_grpc.HealthServicer):  # type: ignore[misc]
    """Reports SERVING and ends the watch, `enough` times; then keeps it open."""

    def __init__(self, enough: int) -> None:
        self.times: list[float] = []
        self.enough = asyncio.Event()
        self._count = enough

    async def Watch(self, request: Any, context: Any) -> AsyncIterator[Any]:
        self.times.append(time.monotonic())
        if len(self.times) >= self._count:
            self.enough.set()  # before the last update, which the caller waits for
        yield health_pb2.HealthCheckResponse(status=health.SERVING)
        if self.enough.is_set():
            await asyncio.Event().wait()


async def watched(servicer: EndingHealth) -> list[bool]:
    """Collect the updates of a watch until the servicer keeps it open."""
    server = grpc.aio.server()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    states: list[bool] = []
    async with SttClient(f"127.0.0.1:{port}") as client, aclosing(client.watch_health()) as updates:

        async def follow() -> None:
            async for serving in updates:
                states.append(serving)
                if serving and servicer.enough.is_set():
                    return

        await asyncio.wait_for(follow(), WAIT_S)
    await server.stop(None)
    return states


async def test_a_server_that_ends_each_watch_is_retried_with_backoff() -> None:
    servicer = EndingHealth(enough=4)
    await watched(servicer)
    gaps = [later - earlier for earlier, later in zip(servicer.times, servicer.times[1:], strict=False)]
    assert gaps[1] > 0.19
    assert gaps[2] > 0.39


async def test_the_end_of_a_long_watch_does_not_change_health(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(health, "_STEADY_S", 0.0)
    assert await watched(EndingHealth(enough=3)) == [True, True, True]
