"""The gateway as an ASGI app: routes, middleware, exception handlers."""

from __future__ import annotations

import asyncio

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from gateway.http.access_log import AccessLog
from gateway.http.drain import DrainBody
from gateway.http.errors import CatchAll, Refusal, handle_http_exception, handle_refusal, handle_stt_error
from gateway.http.head_check import HeadCheck
from gateway.http.headers import EXPOSED_HEADERS, RequestIds
from gateway.http.refusals import Refusals
from gateway.http.sockets import unknown_sockets_router
from gateway.http.uploads import UploadBudget
from gateway.live.endpoint import live_router
from gateway.openai.paths import OpenAiPaths
from gateway.openai.realtime.endpoint import realtime_router
from gateway.openai.routes import openai_router
from gateway.openapi import DESCRIPTION, VERSION
from gateway.options import GatewayOptions
from gateway.pages import pages_router
from gateway.rest.routes import rest_router
from protos.stt.v1.spans import SpanSink
from stt_client import SttClient
from stt_client.errors import SttError


def create_app(
    client: SttClient,
    options: GatewayOptions,
    stopping: asyncio.Event,
    refusals: Refusals,
    spans: SpanSink | None = None,
) -> FastAPI:
    """Build the app in front of the service that `client` is connected to. The caller owns the client.

    Args:
        stopping: set when the gateway stops, which ends live streams.
        spans: receives the spans of requests; None: they are not exported.
    """
    uploads = UploadBudget()
    app = FastAPI(
        title="Speech to text",
        description=DESCRIPTION,
        version=VERSION,
        docs_url=None,  # FastAPI's page loads its scripts from another host
        redoc_url=None,
        redirect_slashes=False,
        middleware=_middleware(options, uploads, refusals, spans),
        exception_handlers={
            Refusal: handle_refusal,
            SttError: handle_stt_error,
            HTTPException: handle_http_exception,
        },
    )
    app.include_router(rest_router(client, options, uploads, refusals))
    app.include_router(openai_router(client, options, uploads))
    app.include_router(live_router(client, options, stopping))
    app.include_router(realtime_router(client, options, stopping))
    app.include_router(pages_router())
    app.include_router(unknown_sockets_router())
    return app


def _middleware(
    options: GatewayOptions, uploads: UploadBudget, refusals: Refusals, spans: SpanSink | None
) -> list[Middleware]:
    """Middleware, outermost first."""
    log = Middleware(AccessLog, refusals=refusals, service_logs_here=options.service_logs_here, spans=spans)
    chain = [
        Middleware(RequestIds),
        Middleware(OpenAiPaths),
        log,
        Middleware(DrainBody),
        Middleware(HeadCheck, uploads=uploads),
    ]
    if options.cors_origins:
        chain.append(
            Middleware(
                CORSMiddleware,
                allow_origins=options.cors_origins,
                allow_methods=("GET", "POST"),
                allow_headers=("*",),  # clients send their own, such as `x-stainless-os`
                expose_headers=EXPOSED_HEADERS,
            )
        )
    return [*chain, Middleware(CatchAll)]
