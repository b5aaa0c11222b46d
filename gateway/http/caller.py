"""Request headers that describe the caller: key, address, deadline, origin."""

from __future__ import annotations

import math
import re
from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection

from gateway.http.errors import Refusal
from protos.stt.v1.trace_context import trace_metadata
from protos.stt.v1.wire import AUTHORIZATION, X_FORWARDED_FOR

MAX_KEY_CHARS = 4096
"""gRPC rejects metadata over 16 KiB, with a status that does not point at the key."""

MAX_FORWARDED = 16
"""Addresses of `X-Forwarded-For` that are passed on: the last ones, which were added by the nearest proxies."""

Metadata = list[tuple[str, str]]

_ADDRESS = re.compile(r"[0-9A-Za-z.:%_\[\]-]{1,64}")
_PRINTABLE = re.compile(r"[ -~]*")
_DEFAULT_PORTS = {"http": 80, "https": 443}


def call_metadata(connection: HTTPConnection) -> Metadata:
    """Metadata of a call on the caller's behalf: its address, its trace and, if a header has one, its key.

    Raises:
        Refusal: unauthenticated: the Authorization header is unusable.
    """
    metadata = [(X_FORWARDED_FOR, forwarded_for(connection)), *trace_metadata()]
    given = connection.headers.getlist("authorization")
    if not given or given == [""]:
        return metadata
    if len(given) > 1 or len(given[0]) > MAX_KEY_CHARS or not _PRINTABLE.fullmatch(given[0]):
        raise Refusal("unauthenticated", "The Authorization header is unusable; send it once, as Bearer KEY in ASCII.")
    return [*metadata, (AUTHORIZATION, given[0])]


def with_key(metadata: Metadata, key: str | None) -> Metadata:
    """`metadata` with the key that the caller sent elsewhere than in a header; None: as it is."""
    if key is None:
        return metadata
    others = [pair for pair in metadata if pair[0] != AUTHORIZATION]
    return [*others, (AUTHORIZATION, f"Bearer {key}")]


def forwarded_for(connection: HTTPConnection) -> str:
    """`X-Forwarded-For` with the peer's address appended.

    Entries that are not addresses become `unknown`, so that the others keep their positions.
    """
    listed = ",".join(connection.headers.getlist("x-forwarded-for")).split(",")
    hops = [hop.strip() for hop in listed if hop.strip()][-MAX_FORWARDED:]
    peer = connection.client.host if connection.client else ""
    return ", ".join(hop if _ADDRESS.fullmatch(hop) else "unknown" for hop in (*hops, peer))


def timeout_of(headers: Headers, default_s: float) -> float:
    """Seconds allowed by `X-Timeout-Ms`, at most `default_s`; `default_s` without the header.

    Raises:
        Refusal: invalid_argument: not a number, or below 1.
    """
    given = headers.get("x-timeout-ms")
    if given is None:
        return default_s
    try:
        milliseconds = float(given)
    except ValueError:
        milliseconds = math.nan
    if not (math.isfinite(milliseconds) and milliseconds >= 1):
        raise Refusal("invalid_argument", "X-Timeout-Ms must be a number of milliseconds, 1 or more.")
    return min(milliseconds / 1000, default_s)


def origin_allowed(headers: Headers, origins: Collection[str]) -> bool:
    """Whether the page that opens a WebSocket may do so. True for callers other than browsers, which send no Origin.

    Browsers apply CORS to requests but not to WebSockets. A page of the same host and port is allowed; the scheme is
    not compared, since a proxy may have terminated TLS.

    Args:
        origins: value of `CORS_ORIGINS`; `*` allows all.
    """
    given = headers.getlist("origin")
    if not given:
        return True
    if len(given) > 1:
        return False
    return "*" in origins or given[0] in origins or _same_host(given[0], headers.get("host", ""))


def _same_host(origin: str, host: str) -> bool:
    try:
        page, requested = urlsplit(origin), urlsplit(f"//{host}")
        default = _DEFAULT_PORTS[page.scheme]
        same = (page.hostname, page.port or default) == (requested.hostname, requested.port or default)
    except (ValueError, KeyError):  # `null`, an invalid port, an extension's scheme
        return False
    return same and bool(page.hostname)
