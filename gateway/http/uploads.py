"""Reading request bodies within bounds of size, time and memory."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from starlette.requests import Request
from starlette.types import Message

from gateway.http.errors import Refusal
from gateway.http.multipart import FORM_SLACK_BYTES, Form, FormReader, FormRules, boundary_of, too_large

FULL_SIZE_UPLOADS = 32
"""Bodies in flight may hold as many bytes together as this number of uploads of the largest size allowed."""

MIN_UPLOAD_AGE_S = 2.0
"""Seconds before an upload may be cancelled to make room, however slowly it starts."""

MIN_BYTES_PER_S = 16 * 1024
"""Slowest sustained rate of an upload that is read to its end: 128 kbit/s."""


class Upload:
    """One body that is being read."""

    def __init__(self, now: float) -> None:
        self.started = now
        self.received = 0
        """Bytes."""
        self.cancelled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done once the upload has to make room for others."""

    def rate(self, now: float) -> float:
        """Mean bytes per second since the start."""
        return self.received / max(now - self.started, 1e-9)


class UploadBudget:
    """Caps the bytes held by bodies in flight. For use from the event loop only.

    When memory or connections run short, the slowest upload is cancelled. Callers that send slowly on purpose are
    slower than all others, so they cannot block anyone else.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._open: set[Upload] = set()
        self._held = 0

    def __len__(self) -> int:
        """Number of bodies in flight."""
        return len(self._open)

    @contextmanager
    def upload(self) -> Iterator[Upload]:
        """Register a body for as long as it is being read."""
        upload = Upload(self._clock())
        self._open.add(upload)
        try:
            yield upload
        finally:
            self._open.discard(upload)
            self._held -= upload.received

    def add(self, upload: Upload, count: int, limit_bytes: int) -> None:
        """Count `count` more bytes of `upload`, and cancel the slowest upload if the budget is exceeded.

        Args:
            limit_bytes: largest body allowed.

        Raises:
            Refusal: overloaded: the budget is exceeded and no upload is old enough to be cancelled.
        """
        upload.received += count
        self._held += count
        if self._held > limit_bytes * FULL_SIZE_UPLOADS and not self.cancel_slowest():
            raise Refusal("overloaded", "Upload memory of the gateway is exhausted; retry later.")

    def cancel_slowest(self) -> bool:
        """Cancel the slowest upload. False if none is older than `MIN_UPLOAD_AGE_S`."""
        now = self._clock()
        candidates = [it for it in self._open if not it.cancelled.done() and now - it.started > MIN_UPLOAD_AGE_S]
        if not candidates:
            return False
        min(candidates, key=lambda upload: upload.rate(now)).cancelled.set_result(None)
        return True


class BodyDeadline:
    """Deadline of the next bytes of a body.

    A body may pause for `timeout_s`, and may take `timeout_s` in all plus the time that its bytes so far need at
    `MIN_BYTES_PER_S`: a slow line passes, a trickle does not.
    """

    def __init__(self, timeout_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._timeout_s = timeout_s
        self._clock = clock
        self._started = clock()
        self._received = 0

    def add(self, count: int) -> None:
        """Count `count` more bytes."""
        self._received += count

    def left_s(self) -> float:
        """Seconds to wait for the next bytes; 0 or less once the deadline has passed."""
        allowed = self._timeout_s + self._received / MIN_BYTES_PER_S
        return min(self._timeout_s, self._started + allowed - self._clock())


async def read_form(
    request: Request, rules: FormRules, max_audio_bytes: int, timeout_s: float, budget: UploadBudget
) -> Form:
    """Read the body as a multipart form.

    Args:
        max_audio_bytes: upload limit of the service.
        timeout_s: longest pause; see `BodyDeadline`.

    Raises:
        Refusal: payload_too_large, invalid_argument, deadline_exceeded, overloaded; cancelled if the caller
            disconnects.
    """
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Refusal("invalid_argument", "Content-Encoding is not supported; send the body uncompressed.")
    reader = FormReader(boundary_of(request.headers.get("content-type", "")), rules, max_audio_bytes)
    if int(request.headers.get("content-length", "0")) > max_audio_bytes + FORM_SLACK_BYTES:
        raise too_large(max_audio_bytes)
    deadline = BodyDeadline(timeout_s)
    more = True
    with budget.upload() as upload:
        while more:
            message = await _next_message(request, max(0.0, deadline.left_s()), upload)
            if message["type"] == "http.disconnect":
                raise Refusal("cancelled", "The caller disconnected.")
            chunk = message.get("body", b"")
            deadline.add(len(chunk))
            budget.add(upload, len(chunk), max_audio_bytes + FORM_SLACK_BYTES)
            reader.feed(chunk)
            more = message.get("more_body", False)
        return reader.finish()


async def _next_message(request: Request, timeout_s: float, upload: Upload) -> Message:
    receiving = asyncio.ensure_future(request.receive())
    try:
        await asyncio.wait((receiving, upload.cancelled), timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        if receiving.done():
            return receiving.result()
    finally:
        receiving.cancel()
    if upload.cancelled.done():
        raise Refusal("overloaded", "The upload was slow and was cancelled to make room for others; retry later.")
    raise Refusal("deadline_exceeded", "The body arrived too slowly.")
