"""Sends the parts of one recording, several at a time, and merges their transcripts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from protos.stt.v1 import speech_pb2
from stt_client.errors import ELSEWHERE, EmptyAudio, RateLimited, SttError
from stt_client.recordings.cutting import cut
from stt_client.recordings.encoding import OVERHEAD_BYTES, encode
from stt_client.recordings.journal import Journal
from stt_client.recordings.merging import PartTranscript, merge
from stt_client.recordings.reading import Reading, Source
from stt_client.request import CallOptions, SendOptions, prepare, send_options
from stt_client.results import Limits, Progress, SettledSegments, TranscribeEvent, Transcript

if TYPE_CHECKING:
    from typing_extensions import Unpack

PART_S = 300.0
"""Longest part. Longer ones would keep one service busy while another has nothing left to do. Seconds."""
PART_BYTES = 8 * 1024 * 1024
"""Largest part before its encoding. Several are in memory at a time."""
PARTS_PER_SERVICE = 2
"""Parts sent to a service at a time: one is transcribed while the next one arrives."""

RETRIES = 5
"""Attempts after the first, each on every service, for a part that fails because of the services."""
RETRY_PAUSE_S = 1.0
"""Pause before the first retry; it doubles. Seconds."""
MAX_RETRY_PAUSE_S = 30.0

_RETRIED: tuple[type[SttError], ...] = (*ELSEWHERE, RateLimited)
_REQUEST_ID_CHARACTERS = 56
"""Of the recording's request id in those of its parts, which add a number."""


class Service(Protocol):
    """Where requests are sent: a client or a pool."""

    @property
    def timeout(self) -> float | None: ...

    @property
    def max_message_bytes(self) -> int: ...

    @property
    def targets(self) -> tuple[str, ...]: ...

    async def limits(self) -> Limits | None: ...

    def send_with_progress(
        self, request: speech_pb2.TranscribeRequest, **call: Unpack[SendOptions]
    ) -> AsyncGenerator[TranscribeEvent, None]: ...

    async def send(self, request: speech_pb2.TranscribeRequest, **call: Unpack[SendOptions]) -> Transcript: ...


@dataclass(frozen=True)
class Job:
    """A recording to transcribe."""

    source: Source
    options: CallOptions
    """Without the format of headerless audio, which the source has."""
    live: bool
    """Report progress within each request."""
    journal: Journal | None = None


def max_frames(service: Service, limits: Limits, reading: Reading) -> int:
    """Most frames of a part that fit into the limits, whatever encoding does to them."""
    upload = min(limits.max_upload_bytes or PART_BYTES, service.max_message_bytes - OVERHEAD_BYTES, PART_BYTES)
    seconds = min(limits.max_audio_duration or PART_S, PART_S)
    by_size = int(max(upload - OVERHEAD_BYTES, OVERHEAD_BYTES) * 0.99) // (2 * reading.channels)
    return max(1, min(int(seconds * reading.sample_rate), by_size))


async def sent(
    service: Service, request: speech_pb2.TranscribeRequest, call: SendOptions, *, live: bool
) -> AsyncGenerator[TranscribeEvent, None]:
    """Send a request, and yield its events; only the transcript unless `live`."""
    if not live:
        yield await service.send(request, **call)
        return
    async with aclosing(service.send_with_progress(request, **call)) as events:
        async for event in events:
            yield event


@dataclass(frozen=True)
class _Piece:
    """A part that is ready to be sent."""

    index: int
    start: int
    frames: int
    data: bytes
    """Encoded; empty if an earlier run has transcribed it."""
    kept: Transcript | None


class PartsRun:
    """The transcription of one recording in parts.

    Args:
        max_frames: of a part.
        seconds: duration of the recording, as far as it is known.
    """

    def __init__(self, service: Service, job: Job, reading: Reading, max_frames: int, seconds: float | None) -> None:
        self._service = service
        self._job = job
        self._reading = reading
        self._max_frames = max_frames
        self._seconds = seconds
        self._request_id = send_options(job.options, None)[0].get("request_id") or ""
        self._began = time.monotonic()
        self._events: asyncio.Queue[TranscribeEvent | None] = asyncio.Queue()
        self._settled: dict[int, float] = {}
        self._done: dict[int, PartTranscript] = {}
        self._kept_s = 0.0

    async def events(self) -> AsyncGenerator[TranscribeEvent, None]:
        """Yield progress, the segments in order, and the transcript. Closing the generator cancels the calls.

        Raises:
            SttError: a part failed on all services, or the recording has no samples.
            OSError: the file can't be read.
        """
        task = asyncio.create_task(self._send_all())
        task.add_done_callback(lambda _: self._events.put_nowait(None))
        try:
            while (event := await self._events.get()) is not None:
                yield event
            await task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        if not self._done:
            raise EmptyAudio("the recording contains no samples")
        parts = [self._done[index] for index in sorted(self._done)]
        transcript = merge(parts, request_id=self._request_id, total_s=time.monotonic() - self._began)
        if self._job.journal is not None:
            self._job.journal.keep_whole(transcript)
        yield transcript

    async def _send_all(self) -> None:
        loop = asyncio.get_running_loop()
        # One thread: each has a heap of its own, which keeps the size of the largest part.
        reader = ThreadPoolExecutor(1, thread_name_prefix="stt-reader")
        slots = asyncio.Semaphore(PARTS_PER_SERVICE * len(self._service.targets))
        pieces, tasks, frames = self._pieces(), list[asyncio.Task[None]](), 0
        try:
            while (piece := await loop.run_in_executor(reader, next, pieces, None)) is not None:
                frames = piece.start + piece.frames
                await slots.acquire()
                for task in tasks:
                    if task.done():
                        task.result()
                tasks.append(asyncio.create_task(self._send(piece)))
                tasks[-1].add_done_callback(lambda _: slots.release())
            self._seconds = frames / self._reading.sample_rate
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            reader.submit(pieces.close)
            reader.shutdown(wait=False)

    def _pieces(self) -> Generator[_Piece, None, None]:
        journal = self._job.journal
        for part in cut(self._reading.blocks, self._reading.sample_rate, self._max_frames):
            frames = len(part.samples)
            kept = None if journal is None else journal.part(part.start, frames)
            data = b"" if kept is not None else encode(part.samples, self._reading.sample_rate)
            yield _Piece(part.index, part.start, frames, data, kept)

    async def _send(self, piece: _Piece) -> None:
        seconds = piece.frames / self._reading.sample_rate
        transcript = piece.kept
        if transcript is None:
            transcript = await self._transcribed(piece, seconds)
            if self._job.journal is not None:
                self._job.journal.keep_part(piece.start, piece.frames, transcript)
        else:
            self._kept_s += seconds
        part = PartTranscript(piece.start / self._reading.sample_rate, seconds, transcript)
        before = self._in_order()
        self._done[piece.index] = part
        for index in range(before, self._in_order()):
            if segments := self._done[index].segments():
                self._events.put_nowait(SettledSegments(segments))
        self._settle(piece.index, seconds)

    def _in_order(self) -> int:
        """Number of parts, from the first, that are complete without a gap."""
        count = 0
        while count in self._done:
            count += 1
        return count

    async def _transcribed(self, piece: _Piece, seconds: float) -> Transcript:
        """Send a part until a service answers it. Raises SttError."""
        for attempt in range(RETRIES + 1):
            try:
                return await self._attempt(piece, seconds)
            except _RETRIED as error:
                if attempt == RETRIES:
                    raise
                pause = max(RETRY_PAUSE_S * 2**attempt, error.retry_after_s or 0.0)
                await asyncio.sleep(min(pause, MAX_RETRY_PAUSE_S))
        raise AssertionError("unreachable")

    async def _attempt(self, piece: _Piece, seconds: float) -> Transcript:
        options = CallOptions(**self._job.options)
        options["request_id"] = f"{self._request_id[:_REQUEST_ID_CHARACTERS]}.{piece.index}"
        timeout = self._service.timeout
        # The default is for short recordings: a part may take as long as it lasts.
        call, rest = send_options(options, None if timeout is None else max(timeout, seconds))
        request = await prepare(piece.data, self._service.max_message_bytes, **rest)
        async with aclosing(sent(self._service, request, call, live=self._job.live)) as events:
            async for event in events:
                if isinstance(event, Transcript):
                    return event
                if isinstance(event, Progress):
                    self._settle(piece.index, min(event.audio_settled, seconds))
        raise AssertionError("a call ends with a transcript or an error")

    def _settle(self, index: int, seconds: float) -> None:
        """Report that so much of a part is transcribed."""
        self._settled[index] = max(seconds, self._settled.get(index, 0.0))
        settled, elapsed = sum(self._settled.values()), time.monotonic() - self._began
        duration = None if self._seconds is None else max(self._seconds, settled)
        self._events.put_nowait(Progress(duration, round(settled, 6), elapsed, self._kept_s))
