"""Headers in, metadata out; trailing metadata in, headers out."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from protos.stt.v1.errors import header_safe
from protos.stt.v1.wire import TRAILER_HEADERS, X_REQ_ID, is_request_id, new_request_id

EXPOSED = ("X-Req-Id", *TRAILER_HEADERS.values(), "X-Error-Type", "X-Error-Message", "Retry-After")
"""Headers that a page of another origin may read, where CORS lets it call at all."""

MAX_KEY_CHARS = 4096
"""The service's gRPC refuses metadata of more than 16 KiB in all, and would do so with a misleading status."""

MAX_FORWARDED = 16
"""How many addresses of `X-Forwarded-For` are passed on: the nearest ones, which are the ones that can be trusted."""

_STARTS = ("http.response.start", "websocket.accept", "websocket.http.response.start")
"""Messages that begin a response, and carry its headers."""

_ADDRESS = re.compile(r"[0-9A-Za-z.:%_\[\]-]{1,64}")
_PRINTABLE = re.compile(r"[ -~]*")


def request_id_in(scope: Scope) -> str:
    """The id that `RequestIds` gave to this request."""
    state: dict[str, str] = scope.get("state", {})
    return state.get("request_id", "")


def chosen_request_id(headers: Headers) -> str:
    """The caller's `X-Req-Id` if there is one and it is well formed, else a new one."""
    given = headers.getlist(X_REQ_ID)
    if len(given) == 1 and is_request_id(given[0]):
        return given[0]
    return new_request_id()


class RequestIds:
    """Gives each request its id, and each response the header that tells it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        request_id = chosen_request_id(Headers(scope=scope))
        scope.setdefault("state", {})["request_id"] = request_id

        async def send_with_id(message: Message) -> None:
            if message["type"] in _STARTS:
                message.setdefault("headers", [])
                MutableHeaders(scope=message)["X-Req-Id"] = request_id
            await send(message)

        await self._app(scope, receive, send_with_id)


def authorization_of(headers: Headers) -> str | None:
    """The `Authorization` header as it came; None if there was none.

    Raises:
        ValueError: it can't be a key of ours: sent twice, too long, or with bytes that metadata can't carry.
    """
    given = headers.getlist("authorization")
    if not given or given == [""]:
        return None
    if len(given) > 1 or len(given[0]) > MAX_KEY_CHARS or not _PRINTABLE.fullmatch(given[0]):
        raise ValueError("not a usable Authorization header")
    return given[0]


def forwarded_for(connection: HTTPConnection) -> str:
    """`X-Forwarded-For` as it came, with the peer's own address at its end.

    What is no address is passed on as `unknown`, so that the places of the others don't shift.
    """
    listed = ",".join(connection.headers.getlist("x-forwarded-for")).split(",")
    hops = [hop.strip() for hop in listed if hop.strip()][-MAX_FORWARDED:]
    peer = connection.client.host if connection.client else ""
    return ", ".join(hop if _ADDRESS.fullmatch(hop) else "unknown" for hop in (*hops, peer))


def timeout_of(headers: Headers, default_s: float) -> float:
    """Seconds that `X-Timeout-Ms` allows the service, at most `default_s`.

    Raises:
        ValueError: not a number of at least 1.
    """
    given = headers.get("x-timeout-ms")
    if given is None:
        return default_s
    milliseconds = float(given)
    if not (math.isfinite(milliseconds) and milliseconds >= 1):
        raise ValueError(given)
    return min(milliseconds / 1000, default_s)


def mirrored(metadata: Mapping[str, str]) -> dict[str, str]:
    """The headers of a response, from the trailing metadata of the call behind it."""
    return {header: header_safe(metadata[name]) for name, header in TRAILER_HEADERS.items() if name in metadata}
