"""`GET /`: the page that shows live captions. Plain files, with nothing from another host."""

from __future__ import annotations

import hashlib
from importlib.resources import files
from pathlib import PurePath

from fastapi import APIRouter, Request
from starlette.responses import Response

TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
    ),
    "Permissions-Policy": "microphone=(self), screen-wake-lock=(self), camera=(), geolocation=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    # An upgrade may change one file and not another: each is asked for anew, and `ETag` spares sending it.
    "Cache-Control": "no-cache",
}


def page_router() -> APIRouter:
    """The routes of the page and its files, which are read here, once."""
    router = APIRouter()
    folder = files("gateway") / "static" / "live"
    for file in folder.iterdir():
        suffix = PurePath(file.name).suffix
        if suffix not in TYPES:
            continue  # what an editor or an archive left there
        path = "/" if file.name == "index.html" else f"/live/{file.name}"
        _serve(router, path, file.read_bytes(), TYPES[suffix])
    return router


def _serve(router: APIRouter, path: str, content: bytes, media_type: str) -> None:
    tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = {**HEADERS, "ETag": tag}

    @router.get(path, include_in_schema=False)
    async def page(request: Request) -> Response:
        if tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(content, headers=headers, media_type=media_type)
