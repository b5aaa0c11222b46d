"""The events of `POST /v1/transcribe`, for callers that accept `text/event-stream`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from starlette.datastructures import Headers

from gateway.http.errors import error_json
from gateway.http.event_stream import MEDIA_TYPE
from stt_client.results import Progress, SettledSegments, TranscribeEvent


def accepts_events(headers: Headers) -> bool:
    """Whether a request's `Accept` headers name `text/event-stream`."""
    listed = ",".join(headers.getlist("accept")).split(",")
    return any(item.partition(";")[0].strip().lower() == MEDIA_TYPE for item in listed)


class RestEventFormat:
    """Events `progress`, `segments`, `result` and `error`; see `gateway.http.event_stream.EventFormat`."""

    def event(self, event: TranscribeEvent) -> str:
        """Lines of an event."""
        if isinstance(event, Progress):
            return _event("progress", {"audio_duration": event.audio_duration, "audio_settled": event.audio_settled})
        if isinstance(event, SettledSegments):
            return _event("segments", {"segments": [segment.as_dict() for segment in event.segments]})
        return _event("result", event.as_dict())

    def error(self, type_: str, message: str, request_id: str) -> str:
        """Lines of the error that ends the stream."""
        return _event("error", error_json(type_, message, request_id))


def _event(name: str, data: Mapping[str, Any]) -> str:
    return f"event: {name}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n"
