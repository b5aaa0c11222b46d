"""One live stream, from its config to its last event."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from concurrent.futures import Executor
from dataclasses import dataclass

from stt_server.errors import PayloadTooLarge, SttError
from stt_server.streaming.draining import DrainSignal, stopping
from stt_server.streaming.events import (
    Final,
    Flush,
    Message,
    PossibleSpeech,
    Sent,
    SpeechEnded,
    SpeechEvent,
    SpeechStarted,
    StreamConfig,
    StreamObserver,
)
from stt_server.streaming.inbox import End, Inbox, Item
from stt_server.streaming.outbox import Outbox
from stt_server.streaming.recognition import StreamRecognizer, UtteranceRecognition
from stt_server.streaming.segmenter import UtteranceSegmenter
from stt_server.streaming.tasks import Tasks
from stt_server.streaming.utterance import Utterance

STEP_SECONDS = 2.0
"""Audio processed in one go, in seconds, so that streams take turns on the threads."""

MAX_PENDING_FINALS = 2
"""Finals that may be pending while the stream goes on."""


@dataclass(frozen=True)
class Limits:
    idle_timeout_s: float
    """Seconds without a message after which a stream ends."""
    max_utterance_bytes: int


@dataclass(frozen=True)
class Shared:
    """Common to all sessions of a service."""

    observer: StreamObserver
    threads: Executor
    """Run voice activity detection, off the event loop."""
    draining: DrainSignal


class Session:
    """One stream: messages in, events out. Single use."""

    def __init__(
        self,
        config: StreamConfig,
        messages: AsyncIterator[Message],
        segmenter: UtteranceSegmenter,
        recognizer: StreamRecognizer,
        limits: Limits,
        shared: Shared,
    ) -> None:
        """
        Args:
            messages: all after the config.
        """
        self._config = config
        self._segmenter = segmenter
        self._recognizer = recognizer
        self._limits = limits
        self._shared = shared
        self._inbox = Inbox(messages, segmenter.bytes_per_second, limits.idle_timeout_s)
        self._outbox = Outbox(self._inbox.arrivals, shared.observer)
        self._tasks = Tasks(self._outbox.close)
        self._utterance: Utterance | None = None
        self._ended = 0
        """Utterances that have ended; the number of the current one."""
        self._finals: deque[asyncio.Task[None]] = deque()

    @property
    def audio_processed(self) -> float:
        """Seconds of the stream processed so far."""
        return self._outbox.audio_processed

    async def events(self) -> AsyncGenerator[Sent, None]:
        """All events, up to the last final. Close the generator early to cancel all work of the stream.

        Raises:
            SttError: the status of a stream that does not end with OK.
        """
        self._tasks.spawn(self._run())
        self._tasks.spawn(self._drain())
        try:
            while (sent := await self._outbox.take()) is not None:
                yield sent
        finally:
            self._tasks.cancel()
            if self._utterance is not None:
                self._utterance.cancel()

    async def _drain(self) -> None:
        grace_s = await self._shared.draining.wait()
        self._inbox.drain()
        await asyncio.sleep(grace_s)
        self._inbox.end_now(stopping())

    async def _run(self) -> None:
        reading = self._tasks.spawn(self._inbox.read())
        error = await self._listen()
        reading.cancel()
        for final in list(self._finals):
            await final
        self._outbox.close(error)

    async def _listen(self) -> SttError | None:
        """Process the input to its end; return the status of the stream, None for OK."""
        while True:
            await self._outbox.ready()
            item = await self._inbox.take(max(1, int(STEP_SECONDS * self._segmenter.bytes_per_second)))
            for event in await self._segment(item):
                await self._handle(event)
                if self._config.single_utterance and self._ended:
                    return None
            if isinstance(item, End):
                return item.error
            if self._shared.draining.begun and not self._segmenter.in_utterance:
                return stopping()
            self._check_size()
            if self._inbox.empty and self._utterance is not None:
                self._utterance.advance(self._segmenter)

    async def _segment(self, item: Item) -> list[SpeechEvent]:
        loop, threads, segmenter = asyncio.get_running_loop(), self._shared.threads, self._segmenter
        events: list[SpeechEvent] = []
        if isinstance(item, bytes):
            events = await loop.run_in_executor(threads, segmenter.add, item)
        elif isinstance(item, Flush):
            events = segmenter.flush()
        elif isinstance(item, End):
            events = await loop.run_in_executor(threads, segmenter.finish)
        self._shared.observer.audio_processed(segmenter.audio_processed - self.audio_processed)
        self._outbox.audio_processed = segmenter.audio_processed
        return events

    def _check_size(self) -> None:
        if self._segmenter.utterance_bytes > self._limits.max_utterance_bytes:
            limit = self._limits.max_utterance_bytes / 2**20
            raise PayloadTooLarge(f"an utterance is over {limit:g} MiB; use a lower sample rate or fewer channels")

    async def _handle(self, event: SpeechEvent) -> None:
        if isinstance(event, SpeechStarted):
            self._outbox.put(event)
            self._utterance = Utterance(
                self._ended, event.offset, self._recognizer, self._outbox, self._tasks, self._config.interim_results
            )
        elif isinstance(event, SpeechEnded):
            self._outbox.put(event)
            await self._finish(self._end_utterance(event), event)
        else:
            await self._decide(event)

    def _end_utterance(self, event: SpeechEnded) -> UtteranceRecognition:
        utterance, self._utterance = self._utterance, None
        speculative = None if utterance is None else utterance.end(event)
        return speculative or self._recognizer.recognize(self._segmenter.chunk(event.bounds))

    async def _decide(self, event: PossibleSpeech) -> None:
        """Send the events of what may be speech if the model recognizes words in it."""
        recognition = self._recognizer.recognize(self._segmenter.chunk(event.bounds))
        try:
            is_speech = await recognition.has_text()
        except BaseException:
            recognition.cancel()
            raise
        if is_speech:
            ended = SpeechEnded(event.bounds, event.noticed_at)
            self._outbox.put(SpeechStarted(event.started))
            self._outbox.put(ended)
            await self._finish(recognition, ended)

    async def _finish(self, recognition: UtteranceRecognition, ended: SpeechEnded) -> None:
        """Begin to wait for the utterance's final, which is sent after all earlier ones."""
        previous = self._finals[-1] if self._finals else None
        number, self._ended = self._ended, self._ended + 1
        final = self._tasks.spawn(self._send_final(number, recognition, ended, previous))
        final.add_done_callback(lambda _: recognition.cancel())  # even if it is cancelled before it starts
        self._finals.append(final)
        while len(self._finals) > MAX_PENDING_FINALS or (self._finals and self._finals[0].done()):
            await self._finals.popleft()

    async def _send_final(
        self, number: int, recognition: UtteranceRecognition, ended: SpeechEnded, previous: asyncio.Task[None] | None
    ) -> None:
        began = time.monotonic()
        transcript = await recognition.transcript()
        if previous is not None:
            await asyncio.shield(previous)
        self._recognizer.remember(transcript, ended.offset)
        total = time.monotonic() - began
        final = Final(number, transcript, recognition.trace, total, recognition.began, recognition.span)
        self._outbox.put_final(final, ended)
