"""Events on their way to the caller, and their delays."""

from __future__ import annotations

import asyncio
import time
from collections import deque

from stt_server.streaming.events import Event, Final, Interim, Sent, SpeechEnded, SpeechStarted, StreamObserver
from stt_server.streaming.inbox import Arrivals

_MAX_UNREAD = 16
"""Unread events above which the session stops to process audio."""


class Outbox:
    """Queue of events. An unread interim is replaced by the next one of its utterance."""

    def __init__(self, arrivals: Arrivals, observer: StreamObserver) -> None:
        """
        Args:
            arrivals: of the stream's audio; delays are measured from them.
        """
        self.audio_processed = 0.0
        """Seconds of the stream processed so far; stamped on each event when it is taken."""
        self._arrivals = arrivals
        self._observer = observer
        self._events: deque[Event] = deque()
        self._changed = asyncio.Event()
        self._closed = False
        self._error: BaseException | None = None

    def put(self, event: SpeechStarted | SpeechEnded) -> None:
        self._put(event)

    def put_interim(self, interim: Interim, until: float, speech_started: float | None) -> None:
        """
        Args:
            until: end of the audio that the interim covers, in seconds of the stream.
            speech_started: for an utterance's first interim, where its speech began.
        """
        now = time.monotonic()
        last = self._events[-1] if self._events else None
        if isinstance(last, Interim) and last.utterance == interim.utterance:
            self._events.pop()
            self.skip_interim()
        self._put(interim)
        first_after = None if speech_started is None else now - self._arrivals.time_of(speech_started)
        self._observer.interim_sent(now - self._arrivals.time_of(until), first_after)

    def skip_interim(self) -> None:
        """Count an interim that is not sent."""
        self._observer.interim_thinned()

    def put_final(self, final: Final, ended: SpeechEnded) -> None:
        now = time.monotonic()
        self._put(final)
        after_speech = now - self._arrivals.time_of(ended.offset)
        self._observer.final_sent(final, after_speech, now - self._arrivals.time_of(ended.noticed_at))

    def close(self, error: BaseException | None = None) -> None:
        """Accept no more events; `take` raises `error` after the last one. Later calls do nothing."""
        if not self._closed:
            self._closed, self._error = True, error
            self._changed.set()

    async def take(self) -> Sent | None:
        """Return the next event; None after the last one. Raises the error that the outbox was closed with."""
        while not self._events:
            if self._error is not None:
                raise self._error
            if self._closed:
                return None
            await self._wait()
        self._changed.set()
        return Sent(self._events.popleft(), self.audio_processed)

    async def ready(self) -> None:
        """Wait until the caller has read enough for more events to be queued."""
        while len(self._events) > _MAX_UNREAD and not self._closed:
            await self._wait()

    def _put(self, event: Event) -> None:
        self._events.append(event)
        self._changed.set()

    async def _wait(self) -> None:
        self._changed.clear()
        await self._changed.wait()
