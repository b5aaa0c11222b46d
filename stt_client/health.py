"""Client of `grpc.health.v1`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

SERVING = health_pb2.HealthCheckResponse.SERVING

_FIRST_PAUSE_S, _LAST_PAUSE_S = 0.2, 5.0
_STEADY_S = 1.0
"""Seconds after which a watch that ends counts as having worked."""


async def check(channel: grpc.aio.Channel, service: str, timeout: float) -> bool:
    """Return whether `service` is SERVING. Raises grpc.aio.AioRpcError."""
    request = health_pb2.HealthCheckRequest(service=service)
    reply = await _stub(channel).Check(request, timeout=timeout)
    return bool(reply.status == SERVING)


async def watch(channel: grpc.aio.Channel, service: str = "") -> AsyncGenerator[bool, None]:
    """Yield whether `service` is SERVING: now, and at each change, until closed.

    An unreachable service is not SERVING: the first attempt reports that immediately, later ones wait for the channel
    to reconnect. A server without a health service counts as SERVING while it is connected.
    """
    stub = _stub(channel)
    request = health_pb2.HealthCheckRequest(service=service)
    wait, pause = False, _FIRST_PAUSE_S
    while True:
        started, answered = time.monotonic(), False
        call = stub.Watch(request, wait_for_ready=wait)
        try:
            async for reply in call:
                answered = True
                yield reply.status == SERVING
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                answered = True
                yield True
                await channel.wait_for_state_change(grpc.ChannelConnectivity.READY)
        finally:
            call.cancel()
        if answered and time.monotonic() - started > _STEADY_S:
            # Servers end old connections routinely. Report a change only if reconnecting fails.
            wait, pause = False, _FIRST_PAUSE_S
            continue
        yield False
        if wait:
            # The server accepts connections but ends the watch early: back off.
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LAST_PAUSE_S)
        wait = True


def _stub(channel: grpc.aio.Channel) -> Any:
    # The health stubs are untyped.
    return health_pb2_grpc.HealthStub(channel)
