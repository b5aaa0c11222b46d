"""The endpoints: each asks the service over gRPC and says the answer in HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from gateway.http.body import read_form
from gateway.http.errors import Refusal
from gateway.http.headers import mirrored, request_id_in, timeout_of
from gateway.http.metadata import Metadata, call_metadata
from gateway.http.uploads import Uploads
from gateway.options import GatewayOptions
from gateway.rest import openapi
from gateway.rest.form import FIELDS, Order, ResponseFormat, order_of
from protos.stt.v1.wire import X_REQ_ID
from stt_client import SttClient
from stt_client.errors import SttError
from stt_client.results import Transcript
from stt_client.subtitles import to_srt, to_vtt

T = TypeVar("T")

HEALTH_TIMEOUT_S = 2.0
"""A health check that takes longer has failed: supervisors give it 3 s."""


def build_router(client: SttClient, options: GatewayOptions, uploads: Uploads) -> APIRouter:
    """The routes in front of the service that `client` reaches.

    Args:
        uploads: where bodies that are being read are counted.
    """
    router = APIRouter()

    @router.post("/v1/transcribe", **openapi.TRANSCRIBE)
    async def transcribe(request: Request) -> Response:
        metadata = call_metadata(request)
        limit = await _admitted(client, request_id_in(request.scope), metadata)
        timeout_s = _timeout(request, options.default_timeout_s)
        order = order_of(await read_form(request, FIELDS, limit, options.body_timeout_s, uploads))
        transcript = await _unless_gone(request, _ask(client, order, timeout_s, request, metadata))
        return _told(transcript, order.response_format)

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


async def _admitted(client: SttClient, request_id: str, metadata: Metadata) -> int:
    """Checks, before the body is received, that the service would admit it. Returns the upload limit in bytes.

    Raises:
        SttError: unauthenticated, rate_limited, not_ready, overloaded, upstream_unavailable.
    """
    limit = await client.check_admission(metadata=[*metadata, (X_REQ_ID, request_id)])
    return limit or (await client.status()).limits.max_upload_bytes


def _timeout(request: Request, default_s: float) -> float:
    try:
        return timeout_of(request.headers, default_s)
    except ValueError:
        raise Refusal("invalid_argument", "X-Timeout-Ms takes a number of milliseconds, 1 or more.") from None


def _ask(
    client: SttClient, order: Order, timeout_s: float, request: Request, metadata: Metadata
) -> Coroutine[Any, Any, Transcript]:
    return client.transcribe(
        order.audio,
        language=order.language,
        candidate_languages=order.candidate_languages,
        task=order.task,
        prompt=order.prompt,
        hotwords=order.hotwords,
        word_timestamps=order.word_timestamps,
        routing=order.routing,
        timeout=timeout_s,
        request_id=request_id_in(request.scope),
        metadata=metadata,
    )


async def _unless_gone(request: Request, call: Coroutine[Any, Any, T]) -> T:
    """The call's result; if the caller goes away first, the call is cancelled.

    Raises:
        Refusal: cancelled.
    """
    answer = asyncio.ensure_future(call)
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait((answer, gone), return_when=asyncio.FIRST_COMPLETED)
        if answer.done():
            return answer.result()
        raise Refusal("cancelled", "The caller went away.")
    finally:
        answer.cancel()
        gone.cancel()
        await asyncio.gather(answer, gone, return_exceptions=True)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _told(transcript: Transcript, response_format: ResponseFormat) -> Response:
    headers = mirrored(transcript.metadata)
    if response_format == "text":
        return PlainTextResponse(transcript.text, headers=headers)
    if response_format == "srt":
        return Response(to_srt(transcript.segments), 200, headers, "application/x-subrip; charset=utf-8")
    if response_format == "vtt":
        return Response(to_vtt(transcript.segments), 200, headers, "text/vtt; charset=utf-8")
    return JSONResponse(transcript.as_dict(), headers=headers)


async def _health(client: SttClient) -> Response:
    """Whether the service answers and says SERVING; what it is, as far as known."""
    try:
        serving, status = await asyncio.wait_for(asyncio.gather(client.health(), client.status()), HEALTH_TIMEOUT_S)
    except (SttError, asyncio.TimeoutError):
        return JSONResponse({"ok": False}, 503)
    about = {"service": status.service, "model": status.model, "device": status.device}
    return JSONResponse({"ok": serving, **about}, 200 if serving else 503)
