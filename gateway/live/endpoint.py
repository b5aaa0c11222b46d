"""`GET /v1/stream`: live transcription over a WebSocket.

    caller                                          gateway
    {"encoding": "linear16", ...}  config, once  ->
    binary: audio                                ->
    {"flush": {}}                                ->
                                                 <-  {"speech_event": ...}, {"interim": ...}, {"final": ...}
    {"end": {}}                                  ->
                                                 <-  remaining events, then close 1000

The service enforces the rules of `StreamTranscribe`; this package enforces those of the WebSocket.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping

from fastapi import APIRouter, Request
from starlette.responses import Response
from starlette.websockets import WebSocket, WebSocketDisconnect

from gateway.http.access_log import set_error, set_logged_by_service
from gateway.http.caller import origin_allowed
from gateway.http.errors import Refusal, error_json, error_response, public_error, retry_after_seconds
from gateway.http.headers import request_id_of
from gateway.live.session import LiveSession
from gateway.options import GatewayOptions
from protos.stt.v1.errors import ERRORS
from protos.stt.v1.wire import X_ERROR_TYPE
from stt_client import SttClient
from stt_client.errors import SttError

logger = logging.getLogger("gateway")

CLOSE_CODES: Mapping[str, int] = {
    "unauthenticated": 1008,
    "rate_limited": 1013,
    "payload_too_large": 1009,
    "audio_too_long": 1009,
    "empty_audio": 1007,
    "unsupported_audio": 1003,
    "invalid_argument": 1007,
    "overloaded": 1013,
    "deadline_exceeded": 1008,
    "cancelled": 1012,
    "fallback_failed": 1014,
    "not_ready": 1012,
    "out_of_memory": 1013,
    "internal": 1011,
    "upstream_unavailable": 1014,
}
"""Close code of a failed stream for each error type. A stream that succeeded closes with 1000.

From RFC 6455 and IANA's registry: 1003 unsupported data, 1007 invalid data, 1008 policy, 1009 too big, 1011 internal,
1012 service restart, 1013 try again later, 1014 bad gateway.
"""

LAST_MESSAGE_S = 1.0
"""Seconds to deliver the last message after the grace period of a stopping gateway."""


def live_router(client: SttClient, options: GatewayOptions, stopping: asyncio.Event) -> APIRouter:
    """Routes of `/v1/stream`.

    Args:
        stopping: set when the gateway stops; open streams are then ended.
    """
    router = APIRouter()

    @router.websocket("/v1/stream")
    async def stream(socket: WebSocket) -> None:
        if not origin_allowed(socket.headers, options.cors_origins):
            message = "Origin not allowed; add the page's origin to CORS_ORIGINS."
            await _refuse(socket, "invalid_argument", message, 403)
        elif stopping.is_set():
            await _refuse(socket, "not_ready", "The gateway is stopping; retry on another.")
        else:
            await socket.accept()
            await _run_session(socket, client, stopping)

    @router.get("/v1/stream", include_in_schema=False)
    async def upgrade_required(request: Request) -> Response:
        message = "WebSocket required; send Connection: Upgrade and Upgrade: websocket."
        return error_response(request, "invalid_argument", message, status=426, headers={"Upgrade": "websocket"})

    return router


async def _run_session(socket: WebSocket, client: SttClient, stopping: asyncio.Event) -> None:
    session = LiveSession(socket, client, stopping)
    try:
        await session.run()
        if stopping.is_set() and not session.ended_by_caller:
            await _fail(socket, "not_ready", "The gateway is stopping; reconnect.")
        else:
            await socket.close(1000)
    except Refusal as refusal:
        await _fail(socket, refusal.type, refusal.message)
    except SttError as error:
        type_, message = public_error(error)
        set_logged_by_service(socket.scope, X_ERROR_TYPE in error.metadata)
        await _fail(socket, type_, message, error.retry_after_s)
    except WebSocketDisconnect:
        set_error(socket.scope, "cancelled", "The caller disconnected.")
    except asyncio.CancelledError:
        # Only the server cancels a stream's task: at the end of the grace period.
        last = _fail(socket, "not_ready", "The gateway is stopping; reconnect.")
        await asyncio.wait((asyncio.ensure_future(last),), timeout=LAST_MESSAGE_S)
    except Exception:
        logger.exception("unexpected error", extra={"request_id": request_id_of(socket.scope)})
        await _fail(socket, "internal", "Internal error.")


async def _refuse(socket: WebSocket, type_: str, message: str, status: int | None = None) -> None:
    """Reject the handshake with the HTTP response of an error."""
    set_error(socket.scope, type_, message)
    await socket.send_denial_response(error_response(socket, type_, message, status=status))


async def _fail(socket: WebSocket, type_: str, message: str, retry_after_s: float | None = None) -> None:
    """Send the error as the last message, and close."""
    set_error(socket.scope, type_, message)
    body = error_json(type_, message, request_id_of(socket.scope))
    if ERRORS[type_].sends_retry_after:
        body["error"]["retry_after"] = retry_after_seconds(type_, retry_after_s)
    try:
        await socket.send_text(json.dumps(body))
        await socket.close(CLOSE_CODES[type_], type_)
    except (WebSocketDisconnect, RuntimeError):
        pass  # disconnected meanwhile; Starlette raises RuntimeError for a message after the close
