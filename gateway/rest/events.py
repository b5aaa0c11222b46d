"""The answer of `POST /v1/transcribe` as server-sent events, for callers that accept `text/event-stream`."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from gateway.http.access_log import set_error, set_logged_by_service
from gateway.http.errors import error_json, public_error
from gateway.http.headers import request_id_of
from stt_client.errors import Internal, SttError
from stt_client.results import Progress, SettledSegments, TranscribeEvent

logger = logging.getLogger("gateway")

MEDIA_TYPE = "text/event-stream"

KEEP_AWAKE_S = 5.0
"""Seconds without an event after which a comment line is sent: proxies close connections that are silent."""

_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
"""Proxies neither keep nor buffer the events."""

Events = AsyncGenerator[TranscribeEvent, None]


def accepts_events(headers: Headers) -> bool:
    """Whether a request's `Accept` headers name `text/event-stream`."""
    listed = ",".join(headers.getlist("accept")).split(",")
    return any(item.partition(";")[0].strip().lower() == MEDIA_TYPE for item in listed)


async def first_decoded(events: Events) -> TranscribeEvent:
    """The first event by which the recording is known to be admitted and decoded. Raises SttError."""
    async for event in events:
        if not isinstance(event, Progress) or event.audio_duration is not None:
            return event
    raise Internal("the service ended the call without a result")


class EventStream(StreamingResponse):
    """Events as they come. A failure is the last event, `error`; when the caller disconnects, the call is cancelled."""

    def __init__(self, request: Request, first: TranscribeEvent, events: Events) -> None:
        """
        Args:
            first: already read from `events`.
        """
        super().__init__(_lines(request.scope, first, events), headers=_HEADERS, media_type=MEDIA_TYPE)
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        set_logged_by_service(scope)
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._events.aclose()


async def _lines(scope: Scope, first: TranscribeEvent, events: Events) -> AsyncGenerator[str, None]:
    yield _line(first)
    waiting = asyncio.ensure_future(anext(events, None))
    try:
        while True:
            await asyncio.wait((waiting,), timeout=KEEP_AWAKE_S)
            if not waiting.done():
                yield ": waiting\n\n"
                continue
            if (following := waiting.result()) is None:
                return
            yield _line(following)
            waiting = asyncio.ensure_future(anext(events, None))
    except SttError as error:
        yield _error(scope, *public_error(error))
    except Exception:
        logger.exception("unexpected error", extra={"request_id": request_id_of(scope)})
        yield _error(scope, "internal", "Internal error.")
    finally:
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)


def _line(event: TranscribeEvent) -> str:
    if isinstance(event, Progress):
        return _event("progress", {"audio_duration": event.audio_duration, "audio_settled": event.audio_settled})
    if isinstance(event, SettledSegments):
        return _event("segments", {"segments": [segment.as_dict() for segment in event.segments]})
    return _event("result", event.as_dict())


def _error(scope: Scope, type_: str, message: str) -> str:
    set_error(scope, type_, message)
    return _event("error", error_json(type_, message, request_id_of(scope)))


def _event(name: str, data: Mapping[str, Any]) -> str:
    return f"event: {name}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n"
