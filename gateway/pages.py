"""Static pages: live captions at `GET /`, API documentation at `GET /docs`. They load nothing from other hosts."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from importlib.resources import files
from pathlib import PurePath

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse, Response

MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}

LIVE_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
    ),
    "Permissions-Policy": "microphone=(self), screen-wake-lock=(self), camera=(), geolocation=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    # An upgrade may change one file and not another, so browsers revalidate each; `ETag` saves the transfer.
    "Cache-Control": "no-cache",
}

DOCS_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
}


def pages_router() -> APIRouter:
    """Routes of all pages. Their files are read once, here."""
    router = APIRouter()
    static = files("gateway") / "static"
    docs_page = (static / "docs.html").read_text(encoding="utf-8")

    @router.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return HTMLResponse(docs_page, headers=DOCS_HEADERS)

    for file in (static / "live").iterdir():
        media_type = MEDIA_TYPES.get(PurePath(file.name).suffix)
        if media_type is not None:  # editors and archives may leave other files
            path = "/" if file.name == "index.html" else f"/live/{file.name}"
            _add_file(router, path, file.read_bytes(), {**LIVE_HEADERS, "Content-Type": media_type})
    return router


def _add_file(router: APIRouter, path: str, content: bytes, headers: Mapping[str, str]) -> None:
    tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = {**headers, "ETag": tag}

    @router.get(path, include_in_schema=False)
    async def file(request: Request) -> Response:
        if tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(content, headers=headers)
