"""`grpc.health.v1` whose watches end with the service instead of being torn down with its server."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2


class HealthServicer(health.aio.HealthServicer):  # type: ignore[misc]  # it comes without types
    def __init__(self) -> None:
        super().__init__()
        self._ended = asyncio.Event()

    def end_watches(self) -> None:
        """Ends each open watch: those who follow look elsewhere, or come again."""
        self._ended.set()

    async def Watch(  # noqa: N802
        self, request: health_pb2.HealthCheckRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> None:
        """Each change of a service's state, as it happens."""
        watching = asyncio.ensure_future(super().Watch(request, context))
        ended = asyncio.ensure_future(self._ended.wait())
        try:
            await asyncio.wait((watching, ended), return_when=asyncio.FIRST_COMPLETED)
        finally:
            ended.cancel()
            watching.cancel()
            await asyncio.wait((watching,))
        if self._ended.is_set():
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the service has stopped")
        watching.result()
