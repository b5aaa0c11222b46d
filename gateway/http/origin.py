"""Whose pages may open a stream. Browsers let any page try: what CORS is for other requests, a WebSocket lacks."""

from __future__ import annotations

from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers

_PORTS = {"http": 80, "https": 443}


def may_call(headers: Headers, origins: Collection[str]) -> bool:
    """Whether the page behind a request is of the same origin or a listed one, or there is no page.

    The same origin: its host and port are those that were asked for. The scheme is left aside, since a proxy may have
    taken the TLS off.

    Args:
        origins: as in `CORS_ORIGINS`; `*` is every one.
    """
    given = headers.getlist("origin")
    if not given:
        return True  # no browser
    if len(given) > 1:
        return False
    return "*" in origins or given[0] in origins or _is_of_host(given[0], headers.get("host", ""))


def _is_of_host(origin: str, host: str) -> bool:
    try:
        page, asked = urlsplit(origin), urlsplit(f"//{host}")
        usual = _PORTS[page.scheme]
        same = (page.hostname, page.port or usual) == (asked.hostname, asked.port or usual)
    except (ValueError, KeyError):  # `null`, a port that is none, an extension's scheme
        return False
    return same and bool(page.hostname)
