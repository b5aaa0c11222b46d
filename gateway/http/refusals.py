"""Counting requests that the gateway refuses by itself, in the metrics of its service."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager

from stt_client import SttClient
from stt_client.errors import SttError
from stt_client.results import GatewayRefusals, Metrics

UPLOAD, STREAM, OTHER = "/v1/transcribe", "/v1/stream", "other"
"""Endpoints of the service's metrics."""

_ENDPOINTS = {
    "/v1/transcribe": UPLOAD,
    "/v1/audio/transcriptions": UPLOAD,
    "/v1/audio/translations": UPLOAD,
    "/v1/stream": STREAM,
    "/v1/realtime": STREAM,
}

SEND_AFTER_S = 1.0
"""Seconds from a refusal until it and all that followed are sent to the service: a flood costs one call a second."""

LAST_SEND_S = 1.0
"""Longest wait for the service by a gateway that stops, in seconds."""


def endpoint_of(path: str) -> str:
    """Endpoint under which a request of this path is counted."""
    return _ENDPOINTS.get(path, OTHER)


class Refusals:
    """Counts until the service has taken the counts over: a second later, or with the next scrape."""

    def __init__(self, use_client: Callable[[], AbstractContextManager[SttClient]]) -> None:
        """
        Args:
            use_client: the client to use for one call; it stays open within the context.
        """
        self._use_client = use_client
        self._counts: Counter[tuple[str, str]] = Counter()
        self._scraping = asyncio.Lock()
        self._sending: asyncio.Task[None] | None = None

    def add(self, endpoint: str, type_: str) -> None:
        """Count one request.

        Args:
            endpoint: see `endpoint_of`.
            type_: key of `protos.stt.v1.errors.ERRORS`.
        """
        self._counts[endpoint, type_] += 1
        if self._sending is None or self._sending.done():
            self._sending = asyncio.create_task(self._send_later())

    async def metrics(self) -> Metrics:
        """Metrics of the service, with all refusals in them. Raises SttError; the counts are kept then."""
        async with self._scraping:
            counts, self._counts = self._counts, Counter()
            try:
                with self._use_client() as client:
                    return await client.metrics(
                        refusals=[GatewayRefusals(*labels, count) for labels, count in counts.items()]
                    )
            except BaseException:
                self._counts.update(counts)
                raise

    async def send(self) -> None:
        """Have the service count the refusals now, if there are any. Raises SttError."""
        if self._counts or self._scraping.locked():
            await self.metrics()

    async def close(self) -> None:
        """Send the last counts, if the service takes them within `LAST_SEND_S`."""
        if self._sending is not None:
            self._sending.cancel()
            await asyncio.gather(self._sending, return_exceptions=True)
        with contextlib.suppress(SttError, asyncio.TimeoutError):
            await asyncio.wait_for(self.send(), LAST_SEND_S)

    async def _send_later(self) -> None:
        await asyncio.sleep(SEND_AFTER_S)
        with contextlib.suppress(SttError):  # the next refusal or scrape tries again
            await self.send()
