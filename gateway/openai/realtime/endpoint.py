"""`GET /v1/realtime`: transcription sessions of OpenAI's Realtime API over a WebSocket.

    caller                                          gateway
                                                 <-  session.created
    session.update                               ->
                                                 <-  session.updated
    input_audio_buffer.append                    ->
                                                 <-  input_audio_buffer.speech_started, ...delta, ...
                                                 <-  conversation.item.input_audio_transcription.completed

docs/openai.md lists the events. The session lasts until the caller closes it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial

from fastapi import APIRouter, Request
from starlette.responses import Response
from starlette.websockets import WebSocket, WebSocketDisconnect

from gateway.http.access_log import set_called, set_error
from gateway.http.caller import Metadata, call_metadata, origin_allowed, with_key
from gateway.http.errors import Refusal, public_error, was_received
from gateway.http.headers import request_id_of
from gateway.http.sockets import OTHER_ORIGIN, STOPPING, close_with, refuse, run_session, websocket_required
from gateway.openai.realtime.items import error_fields, event_text
from gateway.openai.realtime.session import SESSION_S, RealtimeSession, SessionExpired
from gateway.openai.realtime.stretch import CallMaker
from gateway.options import GatewayOptions
from protos.stt.v1.wire import AUTHORIZATION, X_REQ_ID
from stt_client import SttClient
from stt_client.errors import Overloaded, RateLimited, SttError

PATH = "/v1/realtime"
SUBPROTOCOL = "realtime"
KEY_SUBPROTOCOL = "openai-insecure-api-key."
"""Prefix of the subprotocol in which browsers, which cannot set headers, send the key."""

CLOSE_CODES: Mapping[str, int] = {
    "not_ready": 1012,
    "overloaded": 1013,
    "rate_limited": 1013,
    "out_of_memory": 1013,
}
"""Close codes by error type, else `OTHER_ERROR`. The official clients connect again after each of them."""
OTHER_ERROR = 1011
GOING_AWAY = 1001


def realtime_router(client: SttClient, options: GatewayOptions, stopping: asyncio.Event) -> APIRouter:
    """Routes of `/v1/realtime`.

    Args:
        stopping: set when the gateway stops; sessions then end.
    """
    router = APIRouter()

    @router.websocket(PATH)
    async def realtime(socket: WebSocket) -> None:
        if not origin_allowed(socket.headers, options.cors_origins):
            await refuse(socket, "invalid_argument", OTHER_ORIGIN, 403)
        elif stopping.is_set():
            await refuse(socket, "not_ready", STOPPING)
        elif (metadata := await _admitted(socket, client)) is not None:
            await socket.accept(SUBPROTOCOL if SUBPROTOCOL in socket.scope["subprotocols"] else None)
            maker = CallMaker(client, metadata, socket.scope)
            await run_session(socket, _run(socket, maker, stopping), partial(_fail, socket))

    @router.get(PATH, include_in_schema=False)
    async def upgrade_required(request: Request) -> Response:
        return websocket_required(request)

    return router


async def _admitted(socket: WebSocket, client: SttClient) -> Metadata | None:
    """Metadata of the session's calls; None: the handshake was refused, as the calls would be."""
    try:
        metadata = call_metadata(socket)
        if not any(name == AUTHORIZATION for name, _ in metadata):
            metadata = with_key(metadata, _key_of_subprotocol(socket))
        await client.check_admission(metadata=[*metadata, (X_REQ_ID, request_id_of(socket.scope))])
    except (Overloaded, RateLimited):
        return metadata  # no room for a recording now, but a session may be silent for long
    except Refusal as refusal:
        await refuse(socket, refusal.type, refusal.message)
        return None
    except SttError as error:
        type_, message = public_error(error)
        set_called(socket.scope, was_received(error))
        await refuse(socket, type_, message, retry_after_s=error.retry_after_s)
        return None
    return metadata


def _key_of_subprotocol(socket: WebSocket) -> str | None:
    offered = (str(name) for name in socket.scope["subprotocols"])
    keys = (name.removeprefix(KEY_SUBPROTOCOL) for name in offered if name.startswith(KEY_SUBPROTOCOL))
    return next(keys, None)


async def _run(socket: WebSocket, maker: CallMaker, stopping: asyncio.Event) -> None:
    session = RealtimeSession(socket, maker, stopping)
    try:
        await session.run()
    except SessionExpired:
        message = f"The session expired: no event for {SESSION_S:g} s; connect again."
        error = error_fields("deadline_exceeded", message, code="session_expired")
        await _close(socket, error, GOING_AWAY)
    except WebSocketDisconnect:
        if not session.idle:
            raise
    else:
        raise Refusal("not_ready", "The gateway is stopping; reconnect.")


async def _fail(socket: WebSocket, type_: str, message: str, retry_after_s: float | None = None) -> None:
    """Send the error as the last event, and close."""
    set_error(socket.scope, type_, message)
    await _close(socket, error_fields(type_, message), CLOSE_CODES.get(type_, OTHER_ERROR))


async def _close(socket: WebSocket, error: Mapping[str, str | None], close_code: int) -> None:
    last = event_text("error", error={**error, "event_id": None})
    await close_with(socket, last, close_code, error["code"] or "")
