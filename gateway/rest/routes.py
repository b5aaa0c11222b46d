"""REST endpoints. Each makes gRPC calls to the service."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from gateway.http.caller import timeout_of
from gateway.http.errors import Refusal
from gateway.http.headers import trailer_headers
from gateway.http.refusals import Refusals
from gateway.http.uploads import UploadBudget
from gateway.options import GatewayOptions
from gateway.rest import openapi
from gateway.rest.events import RestEventFormat, accepts_events
from gateway.rest.form import RULES, TranscribeForm, parse_form
from gateway.transcription import Transcriptions, subtitles
from stt_client import SttClient
from stt_client.errors import SttError
from stt_client.request import PrepareOptions
from stt_client.results import Transcript
from stt_client.subtitles import text_lines

HEALTH_TIMEOUT_S = 2.0
"""Seconds until a health check fails. Supervisors usually allow 3 s."""


def rest_router(client: SttClient, options: GatewayOptions, uploads: UploadBudget, refusals: Refusals) -> APIRouter:
    """Routes of the REST endpoints."""
    router = APIRouter()
    transcriptions = Transcriptions(client, options, uploads)

    @router.post("/v1/transcribe", **openapi.TRANSCRIBE)
    async def transcribe(request: Request) -> Response:
        timeout_s = timeout_of(request.headers, options.default_timeout_s)
        upload = await transcriptions.receive(request, RULES, timeout_s)
        form = parse_form(upload.form)
        wanted = _prepare_options(form)
        if not accepts_events(request.headers):
            transcript = await transcriptions.transcript(request, upload, form.audio, wanted)
            return await _transcript_response(transcript, form)
        if form.response_format != "json":
            raise Refusal("invalid_argument", "Events are JSON: leave out response_format, or accept its own type.")
        return await transcriptions.events(request, upload, form.audio, wanted, RestEventFormat())

    @router.get("/v1/health", **openapi.HEALTH)
    async def health() -> Response:
        return await _health(client)

    @router.get("/v1/metrics", **openapi.SNAPSHOT)
    async def snapshot() -> Response:
        await refusals.send()
        status = await client.status()
        return JSONResponse(status.snapshot)

    @router.get("/metrics", **openapi.METRICS)
    async def metrics() -> Response:
        found = await refusals.metrics()
        return Response(found.exposition, headers={"Content-Type": found.content_type})

    return router


def _prepare_options(form: TranscribeForm) -> PrepareOptions:
    return PrepareOptions(
        language=form.language,
        candidate_languages=form.candidate_languages,
        task=form.task,
        prompt=form.prompt,
        hotwords=form.hotwords,
        word_timestamps=form.word_timestamps or form.wants_subtitles,
        separate_channels=form.separate_channels,
        routing=form.routing,
    )


async def _transcript_response(transcript: Transcript, form: TranscribeForm) -> Response:
    if form.response_format in ("srt", "vtt"):
        return await subtitles(transcript, form.response_format, form.layout)
    headers = trailer_headers(transcript.metadata)
    if form.response_format == "text":
        return PlainTextResponse("\n".join(text_lines(transcript)), headers=headers)
    return JSONResponse(transcript.as_dict(), headers=headers)


async def _health(client: SttClient) -> Response:
    """200 if the service is SERVING, else 503; the body has its name, model and device if known."""
    try:
        serving, status = await asyncio.wait_for(asyncio.gather(client.health(), client.status()), HEALTH_TIMEOUT_S)
    except (SttError, asyncio.TimeoutError):
        return JSONResponse({"ok": False}, 503)
    about = {"service": status.service, "model": status.model, "device": status.device}
    return JSONResponse({"ok": serving, **about}, 200 if serving else 503)
