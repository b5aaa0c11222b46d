"""The body of a request: bounded in size and in time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from starlette.requests import Request
from starlette.types import Message

from gateway.http.errors import Refusal
from gateway.http.multipart import FORM_SLACK_BYTES, Form, FormReader, boundary_of, too_large
from gateway.http.uploads import Upload, Uploads

MIN_BYTES_PER_S = 16 * 1024
"""The slowest upload that is waited for to its end: 128 kbit/s."""


class Patience:
    """How long to wait for more of a body.

    A body may stand still for `timeout_s`, and in all take `timeout_s` and as long as `MIN_BYTES_PER_S` needs for
    what has come so far: a slow line gets through, a trickle does not.
    """

    def __init__(self, timeout_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._timeout_s = timeout_s
        self._clock = clock
        self._started = clock()
        self._received = 0

    def add(self, count: int) -> None:
        """Takes note of `count` more bytes."""
        self._received += count

    def left_s(self) -> float:
        """Seconds to wait for the next bytes; 0 or less: no longer."""
        allowed = self._timeout_s + self._received / MIN_BYTES_PER_S
        return min(self._timeout_s, self._started + allowed - self._clock())


async def read_form(
    request: Request, known: frozenset[str], max_audio_bytes: int, timeout_s: float, uploads: Uploads
) -> Form:
    """Reads the body as a form.

    Args:
        known: names of fields, besides `audio`.
        max_audio_bytes: the service's upload limit.
        timeout_s: see `Patience`.
        uploads: all that are being read.

    Raises:
        Refusal: payload_too_large, invalid_argument, deadline_exceeded, overloaded, or cancelled if the caller went
            away.
    """
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Refusal("invalid_argument", "Send the body as it is: a Content-Encoding is not taken.")
    reader = FormReader(boundary_of(request.headers.get("content-type", "")), known, max_audio_bytes)
    declared = request.headers.get("content-length", "0")
    if int(declared) > max_audio_bytes + FORM_SLACK_BYTES:
        raise too_large(max_audio_bytes)
    patience = Patience(timeout_s)
    more = True
    with uploads.reading() as upload:
        while more:
            message = await _next_message(request, max(0.0, patience.left_s()), upload)
            if message["type"] == "http.disconnect":
                raise Refusal("cancelled", "The caller went away.")
            chunk = message.get("body", b"")
            patience.add(len(chunk))
            uploads.add(upload, len(chunk), max_audio_bytes + FORM_SLACK_BYTES)
            reader.feed(chunk)
            more = message.get("more_body", False)
        return reader.finish()


async def _next_message(request: Request, timeout_s: float, upload: Upload) -> Message:
    receiving = asyncio.ensure_future(request.receive())
    try:
        await asyncio.wait((receiving, upload.cut), timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        if receiving.done():
            return receiving.result()
    finally:
        receiving.cancel()
    if upload.cut.done():
        raise Refusal("overloaded", "The body came in slowly, and others needed its room; try again.")
    raise Refusal("deadline_exceeded", "The body came in too slowly.")
