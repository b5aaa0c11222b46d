"""All bodies that are being read, and what they may hold together."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from gateway.http.errors import Refusal

FULL_SIZE_UPLOADS = 32
"""Bodies being read hold together at most as much as so many of the largest that the service takes."""

LEFT_ALONE_S = 2.0
"""An upload is not cut in its first seconds, however slow it begins."""


class Upload:
    """One body that is being read."""

    def __init__(self, now: float) -> None:
        self.started = now
        self.received = 0
        """Bytes."""
        self.cut: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done once others need the room: the reader is to give up."""

    def rate(self, now: float) -> float:
        """Bytes a second, since it began."""
        return self.received / max(now - self.started, 1e-9)


class Uploads:
    """Where room is short, the slowest upload gives way: a caller who sends slowly on purpose is slower than all who
    don't, so he can hold up nobody but himself."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._open: set[Upload] = set()
        self._held = 0

    def __len__(self) -> int:
        """Number of bodies being read."""
        return len(self._open)

    @contextmanager
    def reading(self) -> Iterator[Upload]:
        """One more body, for as long as it is being read."""
        upload = Upload(self._clock())
        self._open.add(upload)
        try:
            yield upload
        finally:
            self._open.discard(upload)
            self._held -= upload.received

    def add(self, upload: Upload, count: int, limit_bytes: int) -> None:
        """Takes note of `count` more bytes of a body.

        Args:
            limit_bytes: the largest body that is taken.

        Raises:
            Refusal: overloaded: bodies hold all that they may, and none of the others is slow.
        """
        upload.received += count
        self._held += count
        if self._held > limit_bytes * FULL_SIZE_UPLOADS and not self.cut_slowest():
            raise Refusal("overloaded", "More uploads come in at once than the gateway holds; try again.")

    def cut_slowest(self) -> bool:
        """Ends the slowest upload; False if all of them have only just begun."""
        now = self._clock()
        slow = [it for it in self._open if not it.cut.done() and now - it.started > LEFT_ALONE_S]
        if not slow:
            return False
        min(slow, key=lambda upload: upload.rate(now)).cut.set_result(None)
        return True
