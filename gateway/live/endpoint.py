"""`GET /v1/stream`: live transcription over a WebSocket.

    caller                                          gateway
    {"encoding": "linear16", ...}  config, once  ->
    binary: audio                                ->
    {"flush": {}}                                ->
                                                 <-  {"speech_event": ...}, {"interim": ...}, {"final": ...}
    {"end": {}}                                  ->
                                                 <-  what is left, then close 1000

The rules of a stream are `StreamTranscribe`'s and the service's; here are those of the wire.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping

from fastapi import APIRouter, Request
from starlette.responses import Response
from starlette.websockets import WebSocket, WebSocketDisconnect

from gateway.http.errors import Refusal, error_json, error_response, in_our_words, retry_after
from gateway.http.headers import request_id_in
from gateway.http.origin import may_call
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
"""How a stream that failed is closed, by row of the error table; after its end, 1000.

Of RFC 6455 and IANA's registry: 1003 unsupported data, 1007 invalid data, 1008 policy, 1009 too big, 1011 internal,
1012 service restart, 1013 try again later, 1014 bad gateway.
"""

LAST_WORDS_S = 1.0
"""How long a caller has to take the last message once the time of a stopping gateway is up."""


def live_router(client: SttClient, options: GatewayOptions, stopping: asyncio.Event) -> APIRouter:
    """The stream in front of the service that `client` reaches.

    Args:
        stopping: set once the gateway stops: streams are brought to their end.
    """
    router = APIRouter()

    @router.websocket("/v1/stream")
    async def stream(socket: WebSocket) -> None:
        if not may_call(socket.headers, options.cors_origins):
            message = "Pages of this origin may not call; CORS_ORIGINS lists those that may."
            await _refuse(socket, "invalid_argument", message, 403)
        elif stopping.is_set():
            await _refuse(socket, "not_ready", "The gateway is stopping; try another.")
        else:
            await socket.accept()
            await _serve(socket, client, stopping)

    @router.get("/v1/stream", include_in_schema=False)
    async def no_stream(request: Request) -> Response:
        message = "This path takes WebSockets: ask with Connection: Upgrade and Upgrade: websocket."
        return error_response(request, "invalid_argument", message, status=426, headers={"Upgrade": "websocket"})

    return router


async def _serve(socket: WebSocket, client: SttClient, stopping: asyncio.Event) -> None:
    session = LiveSession(socket, client, stopping)
    try:
        await session.run()
        if stopping.is_set() and not session.ended_by_caller:
            await _fail(socket, "not_ready", "The gateway is stopping; connect again.")
        else:
            await socket.close(1000)
    except Refusal as refusal:
        await _fail(socket, refusal.type, refusal.message)
    except SttError as error:
        type_, message = in_our_words(error)
        socket.scope["state"]["told_by_service"] = X_ERROR_TYPE in error.metadata
        await _fail(socket, type_, message, error.retry_after_s)
    except WebSocketDisconnect:
        _note(socket, "cancelled", "The caller went away.")
    except asyncio.CancelledError:
        # Only the server cancels a stream's task, when it stops and the time for that is up.
        last = _fail(socket, "not_ready", "The gateway is stopping; connect again.")
        await asyncio.wait((asyncio.ensure_future(last),), timeout=LAST_WORDS_S)
    except Exception:
        logger.exception("unexpected error", extra={"request_id": request_id_in(socket.scope)})
        await _fail(socket, "internal", "Internal error.")


async def _refuse(socket: WebSocket, type_: str, message: str, status: int | None = None) -> None:
    """No to the handshake, with an HTTP response as any other error has it."""
    _note(socket, type_, message)
    await socket.send_denial_response(error_response(socket, type_, message, status=status))


async def _fail(socket: WebSocket, type_: str, message: str, retry_after_s: float | None = None) -> None:
    """Says what went wrong, and closes."""
    _note(socket, type_, message)
    told = error_json(type_, message, request_id_in(socket.scope))
    if ERRORS[type_].sends_retry_after:
        told["error"]["retry_after"] = retry_after(type_, retry_after_s)
    try:
        await socket.send_text(json.dumps(told))
        await socket.close(CLOSE_CODES[type_], type_)
    except (WebSocketDisconnect, RuntimeError):
        pass  # gone meanwhile; Starlette has a RuntimeError for what comes after a close


def _note(socket: WebSocket, type_: str, message: str) -> None:
    """For the access log."""
    socket.scope["state"]["told"] = {"error_type": type_, "error_message": message}
