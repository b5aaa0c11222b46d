"""Closed-loop load: a fixed number of callers, each with one request at a time."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from protos.stt.v1 import speech_pb2
from protos.stt.v1.wire import X_FALLBACK_INFER_MS, X_FALLBACK_USED, X_PRIMARY_INFER_MS, X_QUEUE_WAIT_MS
from stt_client.errors import SttError
from stt_client.results import Transcript

REFUSALS = frozenset(("overloaded", "rate_limited", "not_ready"))
"""Error types by which a service turns a request away before it does any work."""

MIN_PAUSE_S = 0.05
"""Shortest pause of a caller after an error, so that a service that fails at once isn't called in a busy loop."""

Send = Callable[[speech_pb2.TranscribeRequest], Awaitable[Transcript]]
Monitor = Callable[[], Awaitable["Reading"]]


@dataclass(frozen=True)
class Outcome:
    """One request, answered or not. Times are seconds; None: the service did not report the step."""

    seconds: float
    """From sending to the answer, as the caller saw it."""
    error: str = ""
    """Error type; empty: it was answered."""
    audio: float = 0.0
    queue_wait: float | None = None
    primary: float | None = None
    """Inference of the service's own model."""
    fallback: float | None = None
    """Call to the fallback, its queue and network time included."""
    fallback_used: bool = False


@dataclass(frozen=True)
class Reading:
    """Load of all services together at one time, as their status reports it."""

    in_flight: int
    queue_depth: int
    gpus: Sequence[Mapping[str, Any]] = ()
    """`utilization_pct`, `mem_used_mb` and `mem_total_mb` of each service with a GPU; a value may be None."""


@dataclass(frozen=True)
class Level:
    """All that was measured with one number of callers."""

    callers: int
    seconds: float
    """Length of the measured window."""
    outcomes: Sequence[Outcome]
    """Requests that ended within the window."""
    in_flight: float
    """Mean number of requests in flight in the window, counted by the callers."""
    readings: Sequence[Reading]
    client_cpu: float
    """Processor time of this process over the window's length: at 1 it occupies a whole core."""
    answered: Sequence[Outcome] = field(init=False)
    errors: Counter[str] = field(init=False)
    """Number of failed requests by error type."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "answered", [outcome for outcome in self.outcomes if not outcome.error])
        object.__setattr__(self, "errors", Counter(outcome.error for outcome in self.outcomes if outcome.error))

    @property
    def refused(self) -> int:
        return sum(count for type_, count in self.errors.items() if type_ in REFUSALS)

    @property
    def throughput(self) -> float:
        """Answered requests per second."""
        return len(self.answered) / self.seconds


class Window:
    """Counts the callers' requests, and measures those that end while it is open."""

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []
        self.ended = 0
        """Requests that have ended, those before the window included."""
        self.changed = asyncio.Event()
        """Set whenever a request ends."""
        self._in_flight = 0
        self._area = 0.0
        """Integral of the number in flight, request seconds."""
        self._since: float | None = None
        """Time of the last change while the window is open."""

    def open(self) -> None:
        self._since = time.perf_counter()

    def close(self) -> float:
        """Stop measuring; returns the integral of the number of requests in flight, in request seconds."""
        self._advance()
        self._since = None
        return self._area

    def begin(self) -> None:
        """Note that a request was sent."""
        self._advance()
        self._in_flight += 1

    def end(self, outcome: Outcome) -> None:
        """Note how a request ended."""
        self._advance()
        self._in_flight -= 1
        self.ended += 1
        self.changed.set()
        if self._since is not None:
            self.outcomes.append(outcome)

    def _advance(self) -> None:
        if self._since is not None:
            now = time.perf_counter()
            self._area += self._in_flight * (now - self._since)
            self._since = now


async def run_level(
    send: Send,
    requests: Iterator[speech_pb2.TranscribeRequest],
    callers: int,
    seconds: float,
    monitor: Monitor,
) -> Level:
    """Load the services with `callers` callers and measure for `seconds`.

    Measuring starts when as many requests have ended as there are callers, since all of the first ones arrive at once.
    It takes longer than `seconds` if fewer requests than callers have ended by then.

    Args:
        requests: endless; each caller takes the next one.
        monitor: reads the services' load; called about ten times per level.
    """
    window, stop = Window(), asyncio.Event()
    calling = [asyncio.create_task(_call_repeatedly(send, requests, window, stop)) for _ in range(callers)]
    try:
        await _until(window, callers, calling)
        readings: list[Reading] = []
        reading = asyncio.create_task(_read_repeatedly(monitor, readings, max(seconds / 10, 0.05)))
        window.open()
        began, cpu = time.perf_counter(), time.process_time()
        try:
            await asyncio.sleep(seconds)
            # Both ends of the window are ends of requests: another moment would cut one in favour of the latencies.
            before = window.ended - len(window.outcomes)
            await _until(window, max(window.ended + 1, before + callers), calling)
        finally:
            area, took, used = window.close(), time.perf_counter() - began, time.process_time() - cpu
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
        stop.set()
        await asyncio.gather(*calling)
    finally:
        for task in calling:
            task.cancel()
        await asyncio.gather(*calling, return_exceptions=True)
    return Level(callers, took, window.outcomes, area / took, readings, used / took)


async def _until(window: Window, ended: int, calling: Sequence[asyncio.Task[None]]) -> None:
    """Wait until `ended` requests have ended. Raises the exception of a caller that failed for another reason."""
    while window.ended < ended:
        window.changed.clear()
        change = asyncio.create_task(window.changed.wait())
        try:
            await asyncio.wait([change, *calling], return_when=asyncio.FIRST_COMPLETED)
            for task in calling:
                if task.done():
                    task.result()
        finally:
            change.cancel()


async def _read_repeatedly(monitor: Monitor, readings: list[Reading], every: float) -> None:
    while True:
        readings.append(await monitor())
        await asyncio.sleep(every)


async def _call_repeatedly(
    send: Send, requests: Iterator[speech_pb2.TranscribeRequest], window: Window, stop: asyncio.Event
) -> None:
    while not stop.is_set():
        window.begin()
        outcome, pause = await call(send, next(requests))
        window.end(outcome)
        if pause:
            await _wait(stop, pause)


async def _wait(stop: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except asyncio.TimeoutError:
        return


async def call(send: Send, request: speech_pb2.TranscribeRequest) -> tuple[Outcome, float]:
    """Send one request; returns its outcome, and seconds to wait before the next one, as the service asks for."""
    began = time.perf_counter()
    try:
        transcript = await send(request)
    except SttError as error:
        pause = max(error.retry_after_s or 0.0, MIN_PAUSE_S)
        return Outcome(time.perf_counter() - began, error.type), pause
    return outcome_of(transcript, time.perf_counter() - began), 0.0


def outcome_of(transcript: Transcript, seconds: float) -> Outcome:
    """Outcome of an answered request, with the times of its trailing metadata."""
    metadata = transcript.metadata
    return Outcome(
        seconds,
        audio=transcript.audio_duration,
        queue_wait=_seconds(metadata, X_QUEUE_WAIT_MS),
        # An answer has 0.0 for an inference that did not take place.
        primary=_seconds(metadata, X_PRIMARY_INFER_MS) or None,
        fallback=_seconds(metadata, X_FALLBACK_INFER_MS) or None,
        fallback_used=metadata.get(X_FALLBACK_USED) == "true",
    )


def _seconds(metadata: Mapping[str, str], name: str) -> float | None:
    try:
        return float(metadata[name]) / 1000
    except (KeyError, ValueError):
        return None
