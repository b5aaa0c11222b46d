"""Escalate all of a request, or its weak chunks, to the fallback."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from stt_server.cascade.fallback import Fallback, FallbackError
from stt_server.cascade.settings import CascadeSettings
from stt_server.engine.types import Chunk, Segment
from stt_server.errors import DeadlineExceeded
from stt_server.request import Answer, Request

DEGRADE_RESERVE_S = 0.1
"""Seconds of the caller's deadline withheld from the fallback, so that the primary's text still arrives in time."""

UNRECOGNIZED_SHARE = 0.5
"""Share of the remaining deadline given to the fallback if the primary would start only after the fallback failed."""


class Escalation:
    """Calls the fallback within the caller's deadline and the configured timeout."""

    def __init__(
        self, fallback: Fallback, settings: CascadeSettings, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._fallback = fallback
        self._settings = settings
        self._clock = clock

    async def whole(self, request: Request, *, unrecognized: bool) -> Answer:
        """The fallback's answer to the whole request.

        Args:
            unrecognized: the primary's model has not run, and will if the fallback fails.

        Raises:
            FallbackError: no answer in time.
            DeadlineExceeded: the caller's own deadline passed.
        """
        return await self._call(request, UNRECOGNIZED_SHARE if unrecognized else 1.0)

    async def chunk(self, request: Request, chunk: Chunk, language: str | None) -> Answer:
        """The fallback's answer to one chunk of a request, with times in the recording.

        Args:
            language: recognized by the primary; None: the fallback detects it.

        Raises:
            FallbackError: no answer in time.
            DeadlineExceeded: the caller's own deadline passed.
        """
        options = replace(request.options, language=request.options.language or language)
        return await self._call(replace(request, source=chunk, options=options))

    async def _call(self, request: Request, share: float = 1.0) -> Answer:
        """The fallback's answer, with times in the recording that the request's audio is from."""
        timeout = self._timeout(request.deadline, share)
        try:
            if timeout <= 0:
                raise FallbackError("deadline_exceeded")
            answer = await self._fallback.transcribe(request, timeout)
        except FallbackError as error:
            callers_deadline = error.code == "deadline_exceeded" and timeout < self._settings.fallback_timeout_s
            if callers_deadline and self._settings.fallback_on_error == "fail":
                raise DeadlineExceeded("deadline passed before the fallback answered; allow more time") from error
            raise
        return _shifted(answer, request.start)

    def _timeout(self, deadline: float | None, share: float) -> float:
        """Seconds the fallback may take."""
        if deadline is None:
            return self._settings.fallback_timeout_s
        remaining = deadline - self._clock()
        if self._settings.fallback_on_error == "degrade":
            remaining = (remaining - DEGRADE_RESERVE_S) * share
        return min(self._settings.fallback_timeout_s, remaining)


def _shifted(answer: Answer, seconds: float) -> Answer:
    """Move all times of an answer `seconds` later."""
    if not seconds:
        return answer
    return replace(answer, segments=tuple(_shifted_segment(segment, seconds) for segment in answer.segments))


def _shifted_segment(segment: Segment, seconds: float) -> Segment:
    words = tuple(replace(w, start=w.start + seconds, end=w.end + seconds) for w in segment.words)
    return replace(segment, start=segment.start + seconds, end=segment.end + seconds, words=words)
