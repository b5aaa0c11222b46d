"""The calls to the fallback on behalf of one request, with their answers, their time and their errors."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace

from stt_server.cascade.escalation import Escalation
from stt_server.cascade.fallback import FallbackError
from stt_server.cascade.settings import CascadeSettings
from stt_server.engine.types import Chunk
from stt_server.engine.windows import SAMPLE_RATE
from stt_server.errors import FallbackFailed
from stt_server.request import Answer, Request

MAX_CONCURRENT_CHUNKS = 4
"""Chunks of one recording that are with the fallback at a time."""


class FallbackCalls:
    """Calls the fallback for one request, and enters the outcome into the request's trace."""

    def __init__(
        self,
        escalation: Escalation,
        request: Request,
        settings: CascadeSettings,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._escalation = escalation
        self._request = request
        self._settings = settings
        self._clock = clock
        self._slots = asyncio.Semaphore(MAX_CONCURRENT_CHUNKS)
        self._begun: float | None = None
        self.error = ""
        """Of the first call that failed; empty: none did."""
        self.answered: list[tuple[Answer, float]] = []
        """The answers to chunks, also those that are not returned, each with the seconds of its audio."""

    def begin(self) -> None:
        """Note that the fallback is needed."""
        if self._begun is None:
            self._begun = self._clock()
            self._request.trace.fallback_result = "failed"  # until it has answered

    async def chunk(self, chunk: Chunk, language: str | None) -> Answer | None:
        """The fallback's answer to a chunk, with times in the recording; None if the primary's is to stand for it.

        Args:
            language: to recognize it in; None: the fallback detects it.

        Raises:
            FallbackFailed: it failed, and FALLBACK_ON_ERROR is `fail`.
            DeadlineExceeded: the caller's own deadline passed.
        """
        try:
            async with self._slots:
                answer = await self._escalation.chunk(self._request, chunk, language)
        except FallbackError as error:
            self._failed(error)
            return None
        self.answered.append((answer, len(chunk.samples) / SAMPLE_RATE))
        return answer

    async def whole(self, *, unrecognized: bool) -> Answer | None:
        """The fallback's answer to the whole request; see `chunk`.

        Args:
            unrecognized: the primary's model has not run, and will if the fallback fails.
        """
        self.begin()
        # Settled text never changes: not where the primary's may stand after all.
        certain = self._settings.fallback_on_error == "fail" and (unrecognized or self._settings.final_choice != "best")
        request = replace(self._request, settles_early=certain and self._request.progress.watched)
        try:
            answer = await self._escalation.whole(request, unrecognized=unrecognized)
        except FallbackError as error:
            self._failed(error)
            return None
        finally:
            self.measure()
        self._request.trace.fallback_result = "used"
        return answer

    def measure(self) -> None:
        """Enter the time since the first call began into the trace."""
        if self._begun is not None:
            self._request.trace.fallback_infer = self._clock() - self._begun
            self._begun = None

    def _failed(self, error: FallbackError) -> None:
        """Note the fallback's error, and raise FallbackFailed if the primary's answer is not to stand for it."""
        self._request.trace.fallback_error = self.error = self.error or error.code
        if self._settings.fallback_on_error == "fail":
            raise FallbackFailed(f"the fallback was needed and failed: {error.code}") from error
