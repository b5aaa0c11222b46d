"""Sessions on WebSockets: refusing the handshake, running until the caller disconnects, closing with the reason."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response
from starlette.websockets import WebSocket, WebSocketDisconnect

from gateway.http.access_log import set_called, set_error, set_logged_by_service
from gateway.http.errors import UNKNOWN_PATH, Refusal, error_response, public_error, was_received
from gateway.http.headers import request_id_of
from protos.stt.v1.wire import X_ERROR_TYPE
from stt_client.errors import SttError

logger = logging.getLogger("gateway")

LAST_MESSAGE_S = 1.0
"""Seconds to deliver the last message after the grace period of a stopping gateway."""

OTHER_ORIGIN = "Origin not allowed; add the page's origin to CORS_ORIGINS."
STOPPING = "The gateway is stopping; retry on another."

Fail = Callable[[str, str, "float | None"], Awaitable[None]]
"""Sends an error as the last message and closes, given its type, its message, and the seconds until a retry."""


def unknown_sockets_router() -> APIRouter:
    """Refuses WebSockets at every path; goes behind all other routes. Starlette would answer 403 with an empty body."""
    router = APIRouter()

    @router.websocket("/{path:path}")
    async def unknown(socket: WebSocket) -> None:
        await refuse(socket, "invalid_argument", UNKNOWN_PATH, 404)

    return router


def websocket_required(request: Request) -> Response:
    """Response to a request without an upgrade, at the path of a WebSocket."""
    message = "WebSocket required; send Connection: Upgrade and Upgrade: websocket."
    return error_response(request, "invalid_argument", message, status=426, headers={"Upgrade": "websocket"})


async def refuse(
    socket: WebSocket, type_: str, message: str, status: int | None = None, retry_after_s: float | None = None
) -> None:
    """Reject the handshake with the HTTP response of an error."""
    set_error(socket.scope, type_, message)
    response = error_response(socket, type_, message, status=status, retry_after_s=retry_after_s)
    await socket.send_denial_response(response)


async def receive(socket: WebSocket) -> str | bytes:
    """The next message. Raises WebSocketDisconnect."""
    message = await socket.receive()
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message.get("code", 1006))
    data = message.get("bytes")
    return data if data is not None else str(message.get("text", ""))


async def run_until_first(
    socket: WebSocket, *decisive: Coroutine[Any, Any, None], beside: Coroutine[Any, Any, None]
) -> None:
    """Run all coroutines until one of `decisive` ends or the caller disconnects; then cancel the others.

    Args:
        beside: may end earlier; an error of it is lost.

    Raises:
        WebSocketDisconnect: the caller disconnected.
        Exception: that of the coroutine that ended, the first of `decisive` if several did.
    """
    disconnected: asyncio.Event = socket.scope["state"]["disconnected"]
    deciding = [asyncio.ensure_future(each) for each in decisive]
    tasks: list[asyncio.Future[Any]] = [
        *deciding,
        asyncio.ensure_future(disconnected.wait()),
        asyncio.ensure_future(beside),
    ]
    try:
        await asyncio.wait(tasks[:-1], return_when=asyncio.FIRST_COMPLETED)
        if ended := next((task for task in deciding if task.done()), None):
            return ended.result()
        raise WebSocketDisconnect(1006)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def run_session(socket: WebSocket, session: Coroutine[Any, Any, None], fail: Fail) -> None:
    """Run a session on an accepted WebSocket. Whatever it raises is logged, and closes the WebSocket with `fail`."""
    try:
        await session
    except Refusal as refusal:
        await fail(refusal.type, refusal.message, None)
    except SttError as error:
        type_, message = public_error(error)
        set_logged_by_service(socket.scope, X_ERROR_TYPE in error.metadata)
        set_called(socket.scope, was_received(error))
        await fail(type_, message, error.retry_after_s)
    except WebSocketDisconnect:
        set_error(socket.scope, "cancelled", "The caller disconnected.")
    except asyncio.CancelledError:
        # Only the server cancels a stream's task: at the end of the grace period.
        last = fail("not_ready", "The gateway is stopping; reconnect.", None)
        await asyncio.wait((asyncio.ensure_future(last),), timeout=LAST_MESSAGE_S)
    except Exception:
        logger.exception("unexpected error", extra={"request_id": request_id_of(socket.scope)})
        await fail("internal", "Internal error.", None)


async def close_with(socket: WebSocket, last: str, code: int, reason: str) -> None:
    """Send the last message, and close. Does nothing if the caller has disconnected."""
    try:
        await socket.send_text(last)
        await socket.close(code, reason)
    except (WebSocketDisconnect, RuntimeError):
        pass  # disconnected meanwhile; Starlette raises RuntimeError for a message after the close
