"""The HTTP side as one ASGI app: routes, middleware, handlers."""

from __future__ import annotations

import asyncio

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from gateway.http.access_log import AccessLog
from gateway.http.drain import Drain
from gateway.http.early_refusal import Door
from gateway.http.errors import CatchAll, Refusal, on_http_exception, on_refusal, on_stt_error
from gateway.http.headers import EXPOSED, RequestIds
from gateway.http.uploads import Uploads
from gateway.live.endpoint import live_router
from gateway.live.page import page_router
from gateway.options import GatewayOptions
from gateway.rest import openapi
from gateway.rest.docs import docs_router
from gateway.rest.routes import build_router
from stt_client import SttClient
from stt_client.errors import SttError


def create_app(client: SttClient, options: GatewayOptions, stopping: asyncio.Event) -> FastAPI:
    """The gateway in front of the service that `client` reaches.

    The caller opens and closes the client; the app only uses it.

    Args:
        stopping: set once the gateway stops, for streams, which would not end by themselves.
    """
    uploads = Uploads()
    app = FastAPI(
        title="Speech to text",
        description=openapi.DESCRIPTION,
        version=openapi.VERSION,
        docs_url=None,  # FastAPI's own page loads its scripts from another host
        redoc_url=None,
        redirect_slashes=False,
        middleware=_middleware(options, uploads),
        exception_handlers={
            Refusal: on_refusal,
            SttError: on_stt_error,
            HTTPException: on_http_exception,
        },
    )
    app.include_router(build_router(client, options, uploads))
    app.include_router(live_router(client, options, stopping))
    app.include_router(docs_router())
    app.include_router(page_router())
    return app


def _middleware(options: GatewayOptions, uploads: Uploads) -> list[Middleware]:
    """From the outermost in."""
    log = Middleware(AccessLog, service_logs_here=options.service_logs_here)
    chain = [Middleware(RequestIds), log, Middleware(Drain), Middleware(Door, uploads=uploads)]
    if options.cors_origins:
        chain.append(
            Middleware(
                CORSMiddleware,
                allow_origins=options.cors_origins,
                allow_methods=("GET", "POST"),
                allow_headers=("Authorization", "Content-Type", "X-Req-Id", "X-Timeout-Ms"),
                expose_headers=EXPOSED,
            )
        )
    return [*chain, Middleware(CatchAll)]
