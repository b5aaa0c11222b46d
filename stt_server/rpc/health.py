"""`grpc.health.v1` of a service."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2

from protos.stt.v1.wire import SPEECH_SERVICE


class HealthServicer(health.aio.HealthServicer):  # type: ignore[misc]  # the package has no types
    """Health of the server ("") and of SpeechToText, which are always equal.

    Ends open watches before the server stops; grpcio's own servicer leaves them to be torn down with the server.
    """

    def __init__(self) -> None:
        super().__init__()
        self._watches_ended = asyncio.Event()

    async def set_serving(self, serving: bool) -> None:
        """Set and publish SERVING or NOT_SERVING."""
        status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        for name in ("", SPEECH_SERVICE):
            await self.set(name, status)

    def end_watches(self) -> None:
        """End every open watch with UNAVAILABLE."""
        self._watches_ended.set()

    async def Watch(  # noqa: N802
        self, request: health_pb2.HealthCheckRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> None:
        """Send the current status and each change of it."""
        watching = asyncio.ensure_future(super().Watch(request, context))
        ended = asyncio.ensure_future(self._watches_ended.wait())
        try:
            await asyncio.wait((watching, ended), return_when=asyncio.FIRST_COMPLETED)
        finally:
            ended.cancel()
            watching.cancel()
            await asyncio.wait((watching,))
        if self._watches_ended.is_set():
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the service has stopped")
        watching.result()
