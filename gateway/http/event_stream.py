"""Server-sent events of a transcription, in the format of their path."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from typing import Protocol

from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from gateway.http.access_log import set_error, set_logged_by_service
from gateway.http.errors import public_error
from gateway.http.headers import request_id_of
from stt_client.errors import Internal, SttError
from stt_client.results import Progress, TranscribeEvent

logger = logging.getLogger("gateway")

MEDIA_TYPE = "text/event-stream"

KEEP_AWAKE_S = 5.0
"""Seconds without an event after which a comment line is sent: proxies close connections that are silent."""

COMMENT = ": waiting\n\n"
"""Line that readers of events skip."""

_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
"""Proxies neither keep nor buffer the events."""

Events = AsyncGenerator[TranscribeEvent, None]


class EventFormat(Protocol):
    """Writes the events of one transcription."""

    def event(self, event: TranscribeEvent) -> str:
        """Lines of an event; not empty."""

    def error(self, type_: str, message: str, request_id: str) -> str:
        """Lines of the error that ends the stream. `type_` is a key of `protos.stt.v1.errors.ERRORS`."""


async def first_decoded(events: Events) -> TranscribeEvent:
    """The first event by which the recording is known to be admitted and decoded. Raises SttError."""
    async for event in events:
        if not isinstance(event, Progress) or event.audio_duration is not None:
            return event
    raise Internal("the service ended the call without a result")


class EventStream(StreamingResponse):
    """Events as they come. A failure is the last event; when the caller disconnects, the call is cancelled."""

    def __init__(self, request: Request, first: TranscribeEvent, events: Events, event_format: EventFormat) -> None:
        """
        Args:
            first: already read from `events`.
        """
        lines = _lines(request.scope, first, events, event_format)
        super().__init__(lines, headers=_HEADERS, media_type=MEDIA_TYPE)
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        set_logged_by_service(scope)
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._events.aclose()


async def _lines(
    scope: Scope, first: TranscribeEvent, events: Events, event_format: EventFormat
) -> AsyncGenerator[str, None]:
    def failed(type_: str, message: str) -> str:
        set_error(scope, type_, message)
        return event_format.error(type_, message, request_id_of(scope))

    yield event_format.event(first)
    waiting = asyncio.ensure_future(anext(events, None))
    try:
        while True:
            await asyncio.wait((waiting,), timeout=KEEP_AWAKE_S)
            if not waiting.done():
                yield COMMENT
                continue
            if (following := waiting.result()) is None:
                return
            yield event_format.event(following)
            waiting = asyncio.ensure_future(anext(events, None))
    except SttError as error:
        yield failed(*public_error(error))
    except Exception:
        logger.exception("unexpected error", extra={"request_id": request_id_of(scope)})
        yield failed("internal", "Internal error.")
    finally:
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
