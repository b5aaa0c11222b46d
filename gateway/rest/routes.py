"""REST endpoints. Each makes gRPC calls to the service."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from gateway.http.admission import upload_limit
from gateway.http.caller import Metadata, call_metadata, timeout_of
from gateway.http.errors import Refusal
from gateway.http.headers import request_id_of, trailer_headers
from gateway.http.uploads import UploadBudget, read_form
from gateway.options import GatewayOptions
from gateway.rest import openapi
from gateway.rest.events import EventStream, accepts_events, first_decoded
from gateway.rest.form import FIELDS, TranscribeForm, parse_form
from stt_client import SttClient
from stt_client.errors import SttError
from stt_client.request import CallOptions, prepare, send_options
from stt_client.results import Transcript
from stt_client.subtitles import text_lines, to_srt, to_vtt

T = TypeVar("T")

SUBTITLES = {
    "srt": (to_srt, "application/x-subrip; charset=utf-8"),
    "vtt": (to_vtt, "text/vtt; charset=utf-8"),
}
"""Function and media type of each format of subtitles."""

HEALTH_TIMEOUT_S = 2.0
"""Seconds until a health check fails. Supervisors usually allow 3 s."""


def rest_router(client: SttClient, options: GatewayOptions, uploads: UploadBudget) -> APIRouter:
    """Routes of the REST endpoints."""
    router = APIRouter()

    @router.post("/v1/transcribe", **openapi.TRANSCRIBE)
    async def transcribe(request: Request) -> Response:
        metadata = call_metadata(request)
        limit = await upload_limit(client, request_id_of(request.scope), metadata)
        timeout_s = timeout_of(request.headers, options.default_timeout_s)
        form = parse_form(await read_form(request, FIELDS, limit, options.body_timeout_s, uploads))
        call = _call_options(form, timeout_s, request, metadata)
        if accepts_events(request.headers):
            return await _event_stream(client, form, call, request)
        # Not `client.transcribe`: it splits what the service refuses as too long, by decoding it in this process, which
        # is not confined as the service's decoders are.
        send, prepared = send_options(call, timeout_s)
        message = await prepare(form.audio, client.max_message_bytes, **prepared)
        transcript = await _unless_disconnected(request, client.send(message, **send))
        return await _transcript_response(transcript, form)

    @router.get("/v1/health", **openapi.HEALTH)
    async def health() -> Response:
        return await _health(client)

    @router.get("/v1/metrics", **openapi.SNAPSHOT)
    async def snapshot() -> Response:
        status = await client.status()
        return JSONResponse(status.snapshot)

    @router.get("/metrics", **openapi.METRICS)
    async def metrics() -> Response:
        found = await client.metrics()
        return Response(found.exposition, headers={"Content-Type": found.content_type})

    return router


async def _event_stream(client: SttClient, form: TranscribeForm, call: CallOptions, request: Request) -> Response:
    """Server-sent events, once the recording is admitted and decoded; before, errors are ordinary responses.

    Raises:
        Refusal: invalid_argument: a format of the whole transcript was asked for; cancelled.
        SttError: the call failed.
    """
    if form.response_format != "json":
        raise Refusal("invalid_argument", "Events are JSON: leave out response_format, or accept its own type.")
    send, prepared = send_options(call, None)
    message = await prepare(form.audio, client.max_message_bytes, **prepared)
    events = client.send_with_progress(message, **send)
    try:
        first = await _unless_disconnected(request, first_decoded(events))
    except BaseException:
        await events.aclose()
        raise
    return EventStream(request, first, events)


def _call_options(form: TranscribeForm, timeout_s: float, request: Request, metadata: Metadata) -> CallOptions:
    return CallOptions(
        language=form.language,
        candidate_languages=form.candidate_languages,
        task=form.task,
        prompt=form.prompt,
        hotwords=form.hotwords,
        word_timestamps=form.word_timestamps or form.wants_subtitles,
        separate_channels=form.separate_channels,
        routing=form.routing,
        timeout=timeout_s,
        request_id=request_id_of(request.scope),
        metadata=metadata,
    )


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


async def _transcript_response(transcript: Transcript, form: TranscribeForm) -> Response:
    headers = trailer_headers(transcript.metadata)
    if form.response_format == "text":
        return PlainTextResponse("\n".join(text_lines(transcript)), headers=headers)
    if form.wants_subtitles:
        render, media_type = SUBTITLES[form.response_format]
        # In a thread: an hour of speech takes most of a second.
        subtitles = await asyncio.to_thread(render, transcript.segments, form.layout)
        return Response(subtitles, 200, headers, media_type)
    return JSONResponse(transcript.as_dict(), headers=headers)


async def _health(client: SttClient) -> Response:
    """200 if the service is SERVING, else 503; the body has its name, model and device if known."""
    try:
        serving, status = await asyncio.wait_for(asyncio.gather(client.health(), client.status()), HEALTH_TIMEOUT_S)
    except (SttError, asyncio.TimeoutError):
        return JSONResponse({"ok": False}, 503)
    about = {"service": status.service, "model": status.model, "device": status.device}
    return JSONResponse({"ok": serving, **about}, 200 if serving else 503)
