"""OpenAI's audio API: each request is one call of the service."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import suppress

from fastapi import APIRouter, Request
from starlette.datastructures import Headers
from starlette.responses import JSONResponse, Response

from gateway.http.caller import call_metadata, timeout_of
from gateway.http.errors import error_response, handle_stt_error
from gateway.http.headers import request_id_of
from gateway.http.multipart import Form, FormRules
from gateway.http.uploads import UploadBudget
from gateway.openai import openapi
from gateway.openai.answers import Json, TextEvents, transcript_response
from gateway.openai.form import (
    TRANSCRIPTION_RULES,
    TRANSLATION_RULES,
    OpenAiForm,
    parse_transcription,
    parse_translation,
)
from gateway.options import GatewayOptions
from gateway.transcription import Transcriptions
from protos.stt.v1.wire import X_REQ_ID
from stt_client import SttClient
from stt_client.errors import InvalidArgument, Overloaded, RateLimited

WHISPER = "whisper-1"
"""Model name that most programs send. Any name is accepted."""

READ_TIMEOUT = "x-stainless-read-timeout"
"""Header in which the official Python client sends how long it waits, in seconds."""


CLOCK_TOLERANCE_S = 2.0
"""Seconds between two calculations of one start time: the uptime is as old as its response takes to arrive."""


def openai_router(client: SttClient, options: GatewayOptions, uploads: UploadBudget) -> APIRouter:
    """Routes of the audio API and of the list of models."""
    router = APIRouter()
    transcriptions = Transcriptions(client, options, uploads)
    models_of = _Models(client)

    async def answer(request: Request, rules: FormRules, parse: Callable[[Form], OpenAiForm]) -> Response:
        timeout_s = _timeout_of(request.headers, options.default_timeout_s)
        upload = await transcriptions.receive(request, rules, timeout_s)
        form = parse(upload.form)
        try:
            if form.stream:
                return await transcriptions.events(request, upload, form.audio, form.options, TextEvents())
            transcript = await transcriptions.transcript(request, upload, form.audio, form.options)
        except InvalidArgument as error:
            return await handle_stt_error(request, error, field=form.field_of(error.invalid_field))
        return await transcript_response(transcript, form)

    @router.post("/v1/audio/transcriptions", **openapi.TRANSCRIPTIONS)
    async def transcription(request: Request) -> Response:
        return await answer(request, TRANSCRIPTION_RULES, parse_transcription)

    @router.post("/v1/audio/translations", **openapi.TRANSLATIONS)
    async def translation(request: Request) -> Response:
        return await answer(request, TRANSLATION_RULES, parse_translation)

    @router.get("/v1/models", **openapi.MODELS)
    async def models(request: Request) -> Response:
        return JSONResponse({"object": "list", "data": await models_of(request)})

    @router.get("/v1/models/{model:path}", **openapi.MODEL)
    async def model(request: Request, model: str) -> Response:
        found = next((known for known in await models_of(request) if known["id"] == model), None)
        if found is None:
            message = "Unknown model; GET /v1/models lists the models."
            return error_response(request, "invalid_argument", message, status=404, field="model")
        return JSONResponse(found)

    return router


class _Models:
    """The list of models. Its entries stay the same as long as the service runs."""

    def __init__(self, client: SttClient) -> None:
        self._client = client
        self._started = 0.0
        """Unix time in seconds."""

    async def __call__(self, request: Request) -> list[Json]:
        """The model that runs, behind the name that programs expect. Raises SttError."""
        metadata = [*call_metadata(request), (X_REQ_ID, request_id_of(request.scope))]
        with suppress(Overloaded, RateLimited):  # it checks the key first
            await self._client.check_admission(metadata=metadata)
        status = await self._client.status(metadata=metadata)
        started = time.time() - status.uptime
        if abs(started - self._started) > CLOCK_TOLERANCE_S:
            self._started = started
        names = dict.fromkeys((WHISPER, status.model))
        return [{"id": name, "object": "model", "created": int(self._started), "owned_by": "stt"} for name in names]


def _timeout_of(headers: Headers, default_s: float) -> float:
    """Seconds allowed by `X-Timeout-Ms`, or by `READ_TIMEOUT`, at most `default_s`.

    Raises:
        Refusal: invalid_argument: X-Timeout-Ms is invalid.
    """
    if "x-timeout-ms" in headers:
        return timeout_of(headers, default_s)
    try:
        seconds = float(headers.get(READ_TIMEOUT, ""))
    except ValueError:
        return default_s
    return min(seconds, default_s) if math.isfinite(seconds) and seconds > 0 else default_s
