"""The signal that tells live streams to end because the service is stopping."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from stt_server.errors import NotReady

_T = TypeVar("_T")


class DrainSignal:
    """Set once per service."""

    def __init__(self) -> None:
        self._begun = asyncio.Event()
        self._grace_s = 0.0

    @property
    def begun(self) -> bool:
        return self._begun.is_set()

    def begin(self, grace_s: float) -> None:
        """Start the drain; streams get `grace_s` seconds to finish the current utterance. Later calls do nothing."""
        if not self.begun:
            self._grace_s = grace_s
            self._begun.set()

    async def wait(self) -> float:
        """Wait for the drain to begin; return its grace period in seconds."""
        await self._begun.wait()
        return self._grace_s

    async def interrupt(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Return the result of `work`.

        Raises:
            NotReady: the drain began first; `work` is cancelled.
        """
        working = asyncio.ensure_future(work)
        waiting = asyncio.ensure_future(self._begun.wait())
        try:
            await asyncio.wait((working, waiting), return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                raise stopping()
            return working.result()
        finally:
            working.cancel()
            waiting.cancel()
            # Cancelled work may end with an error, which asyncio would log as never retrieved.
            await asyncio.gather(working, waiting, return_exceptions=True)


def stopping() -> NotReady:
    """The status of a stream that ends because of the drain."""
    return NotReady("the service is stopping; reconnect to another server and resume after the last final")
