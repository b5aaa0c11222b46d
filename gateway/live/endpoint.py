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
from collections.abc import Mapping
from functools import partial

from fastapi import APIRouter, Request
from starlette.responses import Response
from starlette.websockets import WebSocket

from gateway.http.access_log import set_error
from gateway.http.caller import origin_allowed
from gateway.http.errors import Refusal, error_json, retry_after_seconds
from gateway.http.headers import request_id_of
from gateway.http.sockets import OTHER_ORIGIN, STOPPING, close_with, refuse, run_session, websocket_required
from gateway.live.session import LiveSession
from gateway.options import GatewayOptions
from protos.stt.v1.errors import ERRORS
from stt_client import SttClient

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


def live_router(client: SttClient, options: GatewayOptions, stopping: asyncio.Event) -> APIRouter:
    """Routes of `/v1/stream`.

    Args:
        stopping: set when the gateway stops; open streams are then ended.
    """
    router = APIRouter()

    @router.websocket("/v1/stream")
    async def stream(socket: WebSocket) -> None:
        if not origin_allowed(socket.headers, options.cors_origins):
            await refuse(socket, "invalid_argument", OTHER_ORIGIN, 403)
        elif stopping.is_set():
            await refuse(socket, "not_ready", STOPPING)
        else:
            await socket.accept()
            await run_session(socket, _run(socket, client, stopping), partial(_fail, socket))

    @router.get("/v1/stream", include_in_schema=False)
    async def upgrade_required(request: Request) -> Response:
        return websocket_required(request)

    return router


async def _run(socket: WebSocket, client: SttClient, stopping: asyncio.Event) -> None:
    session = LiveSession(socket, client, stopping)
    await session.run()
    if stopping.is_set() and not session.ended_by_caller:
        raise Refusal("not_ready", "The gateway is stopping; reconnect.")
    await socket.close(1000)


async def _fail(socket: WebSocket, type_: str, message: str, retry_after_s: float | None = None) -> None:
    """Send the error as the last message, and close."""
    set_error(socket.scope, type_, message)
    body = error_json(type_, message, request_id_of(socket.scope))
    if ERRORS[type_].sends_retry_after:
        body["error"]["retry_after"] = retry_after_seconds(type_, retry_after_s)
    await close_with(socket, json.dumps(body), CLOSE_CODES[type_], type_)
