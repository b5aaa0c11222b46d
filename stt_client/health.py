"""Whether a service is SERVING, as `grpc.health.v1` tells it: followed by a watch, never by polling."""

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
"""A watch that lasted this long was a working one."""


async def check(channel: grpc.aio.Channel, service: str, timeout: float) -> bool:
    """One `Check`. Raises `grpc.aio.AioRpcError`."""
    request = health_pb2.HealthCheckRequest(service=service)
    reply = await _stub(channel).Check(request, timeout=timeout)
    return bool(reply.status == SERVING)


async def watch(channel: grpc.aio.Channel, service: str = "") -> AsyncGenerator[bool, None]:
    """Whether the service is SERVING: now, and at each change, for ever.

    A service that can't be reached is not. The first attempt says so at once; after that the channel's own
    reconnecting is waited for. A server without a health service counts as serving while it is connected.
    """
    stub = _stub(channel)
    request = health_pb2.HealthCheckRequest(service=service)
    wait, pause = False, _FIRST_PAUSE_S
    while True:
        started, heard = time.monotonic(), False
        call = stub.Watch(request, wait_for_ready=wait)
        try:
            async for reply in call:
                heard = True
                yield reply.status == SERVING
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                heard = True
                yield True
                await channel.wait_for_state_change(grpc.ChannelConnectivity.READY)
        finally:
            call.cancel()
        if heard and time.monotonic() - started > _STEADY_S:
            # Servers end old connections as a matter of course. Only if no new one can be had is this one out.
            wait, pause = False, _FIRST_PAUSE_S
            continue
        yield False
        if wait:
            # It could be connected to, and yet the watch ended soon: don't spin against such a server.
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LAST_PAUSE_S)
        wait = True


def _stub(channel: grpc.aio.Channel) -> Any:
    # The stubs of the health service are typed for neither kind of channel.
    return health_pb2_grpc.HealthStub(channel)
