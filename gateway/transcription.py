"""A transcription over HTTP: admission, the form, the call, and the formats that every API of the gateway has."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from starlette.requests import Request
from starlette.responses import Response

from gateway.http.access_log import set_called
from gateway.http.admission import upload_limit
from gateway.http.caller import call_metadata
from gateway.http.errors import Refusal
from gateway.http.event_stream import EventFormat, EventStream, first_decoded
from gateway.http.headers import request_id_of, trailer_headers
from gateway.http.multipart import Form, FormRules
from gateway.http.uploads import UploadBudget, read_form
from gateway.options import GatewayOptions
from stt_client import SttClient
from stt_client.request import CallOptions, PrepareOptions, prepare, send_options
from stt_client.results import Transcript
from stt_client.subtitles import SubtitleLayout, to_srt, to_vtt

T = TypeVar("T")
SubtitleFormat = Literal["srt", "vtt"]

SUBTITLES = {
    "srt": (to_srt, "application/x-subrip; charset=utf-8"),
    "vtt": (to_vtt, "text/vtt; charset=utf-8"),
}
"""Function and media type of each format of subtitles."""


@dataclass(frozen=True)
class Upload:
    """A form that was received, and the options of its call that are not in the form."""

    form: Form
    call: CallOptions


class Transcriptions:
    """Makes calls for uploads. A call is cancelled when its caller disconnects, with Refusal, cancelled."""

    def __init__(self, client: SttClient, options: GatewayOptions, uploads: UploadBudget) -> None:
        self._client = client
        self._options = options
        self._uploads = uploads

    async def receive(self, request: Request, rules: FormRules, timeout_s: float) -> Upload:
        """Check that the service would admit a recording, then receive the form.

        Args:
            timeout_s: of the call, in seconds.

        Raises:
            Refusal: see `read_form`; unauthenticated: the Authorization header is unusable.
            SttError: unauthenticated, rate_limited, not_ready, overloaded, upstream_unavailable.
        """
        metadata, request_id = call_metadata(request), request_id_of(request.scope)
        limit = await upload_limit(self._client, request_id, metadata)
        form = await read_form(request, rules, limit, self._options.body_timeout_s, self._uploads)
        return Upload(form, CallOptions(timeout=timeout_s, request_id=request_id, metadata=metadata))

    async def transcript(self, request: Request, upload: Upload, audio: bytes, options: PrepareOptions) -> Transcript:
        """Transcribe a recording. Raises SttError: the call failed."""
        # Not `client.transcribe`: it splits what the service refuses as too long, by decoding it in this process, which
        # is not confined as the service's decoders are.
        send, _ = send_options(upload.call, None)
        message = await prepare(audio, self._client.max_message_bytes, **options)
        set_called(request.scope)
        return await _unless_disconnected(request, self._client.send(message, **send))

    async def events(
        self, request: Request, upload: Upload, audio: bytes, options: PrepareOptions, event_format: EventFormat
    ) -> EventStream:
        """Server-sent events, once the recording is admitted and decoded; before, errors are ordinary responses.

        Raises:
            SttError: the call failed.
        """
        send, _ = send_options(upload.call, None)
        message = await prepare(audio, self._client.max_message_bytes, **options)
        set_called(request.scope)
        events = self._client.send_with_progress(message, **send)
        try:
            first = await _unless_disconnected(request, first_decoded(events))
        except BaseException:
            await events.aclose()
            raise
        return EventStream(request, first, events, event_format)


async def subtitles(transcript: Transcript, name: SubtitleFormat, layout: SubtitleLayout) -> Response:
    """Response with the subtitles of a transcript, which has word times."""
    render, media_type = SUBTITLES[name]
    # In a thread: an hour of speech takes most of a second.
    text = await asyncio.to_thread(render, transcript.segments, layout)
    return Response(text, 200, trailer_headers(transcript.metadata), media_type)


async def _unless_disconnected(request: Request, call: Coroutine[Any, Any, T]) -> T:
    """Result of the call, which is cancelled if the caller disconnects first.

    Raises:
        Refusal: cancelled.
    """
    result = asyncio.ensure_future(call)
    disconnected = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait((result, disconnected), return_when=asyncio.FIRST_COMPLETED)
        if result.done():
            return result.result()
        raise Refusal("cancelled", "The caller disconnected.")
    finally:
        result.cancel()
        disconnected.cancel()
        await asyncio.gather(result, disconnected, return_exceptions=True)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
