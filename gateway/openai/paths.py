"""The paths of OpenAI's API: their errors have its shape, and every response has `x-request-id`."""

from __future__ import annotations

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.http.errors import set_error_format
from gateway.http.headers import RESPONSE_STARTS, request_id_of
from gateway.openai.errors import OpenAiErrorFormat

ROOTS = ("/v1/audio", "/v1/models", "/v1/realtime")


class OpenAiPaths:
    """Middleware for all paths at and below `ROOTS`, whether they exist or not. Goes inside of `RequestIds`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._format = OpenAiErrorFormat()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket") or not is_openai_path(scope["path"]):
            await self._app(scope, receive, send)
            return
        set_error_format(scope, self._format)

        async def send_with_id(message: Message) -> None:
            if message["type"] in RESPONSE_STARTS:
                message.setdefault("headers", [])
                MutableHeaders(scope=message)["x-request-id"] = request_id_of(scope)
            await send(message)

        await self._app(scope, receive, send_with_id)


def is_openai_path(path: str) -> bool:
    """Whether a path is one of `ROOTS` or below one."""
    return any(path == root or path.startswith(f"{root}/") for root in ROOTS)
