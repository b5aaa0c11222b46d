"""One live stream from its first message to its last event."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from typing import Any, Protocol

from stt_server.audio import Chunk
from stt_server.engine.types import DecodeOptions
from stt_server.errors import NotReady, PayloadTooLarge, SttError
from stt_server.routing import Policy
from stt_server.streaming.context import Context
from stt_server.streaming.events import Final, Flush, Interim, Message, Sent, Speech, StreamConfig, Watch
from stt_server.streaming.inbox import Drain, End, Inbox
from stt_server.streaming.outbox import Outbox
from stt_server.streaming.segmenter import Ear, PerhapsSpeech, Sign, SpeechEnded, SpeechStarted
from stt_server.streaming.utterance import Draft, Hearing, Utterance

STEP_SECONDS = 2.0
"""Of audio that is heard in one go, so that streams take turns."""

FINALS_AT_A_TIME = 2
"""Finals that one stream waits for while it goes on hearing."""

STOPPING = "the service is stopping; go on with another one, from behind the last final"


class Engine(Protocol):
    """What all streams share; see `stt_server.streaming.recognition`."""

    def check(self, options: DecodeOptions, policy: Policy) -> None:
        """Raises InvalidArgument."""
        ...

    def draft(self, chunk: Chunk, options: DecodeOptions) -> Draft: ...

    def hear(
        self,
        chunk: Chunk,
        options: DecodeOptions,
        context_language: str,
        policy: Policy,
        request_id: str,
        *,
        ahead: bool,
    ) -> Hearing: ...


@dataclass(frozen=True)
class Limits:
    idle_timeout_s: float
    """Seconds without a message that end a stream."""
    max_utterance_bytes: int


class Session:
    """The state of one stream. Use it once."""

    def __init__(
        self,
        engine: Engine,
        limits: Limits,
        watch: Watch,
        threads: Executor,
        request_id: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            threads: where audio is heard, so that the event loop is not held up.
        """
        self._engine = engine
        self._limits = limits
        self._watch = watch
        self._threads = threads
        self._request_id = request_id
        self._clock = clock
        self._outbox = Outbox()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._finals: deque[asyncio.Task[None]] = deque()
        self._context = Context()
        self._utterance: Utterance | None = None
        self._number = 0
        """Of the next utterance."""
        self._draining = False
        self._inbox: Inbox | None = None
        self._ear: Ear | None = None

    @property
    def heard(self) -> float:
        """Seconds of the stream that have been heard."""
        return self._ear.heard if self._ear else 0.0

    async def events(self, messages: AsyncIterator[Message]) -> AsyncGenerator[Sent, None]:
        """What is sent to the caller. Ends behind the last final; closing it frees everything at once.

        Raises:
            SttError: what the stream ends with.
        """
        self._inbox = Inbox(messages, self._limits.idle_timeout_s, self._clock)
        self._spawn(self._work(self._inbox))
        try:
            while (event := await self._outbox.take()) is not None:
                yield Sent(event, self.heard)
        finally:
            self._cancel()

    def drain(self, within_s: float) -> None:
        """Ends the stream as soon as nobody speaks, after `within_s` seconds at the latest."""
        if self._inbox is None or self._ear is None:
            self._outbox.close(NotReady(STOPPING))
            return
        self._draining = True
        self._inbox.interrupt(Drain(), at_once=False)
        asyncio.get_running_loop().call_later(within_s, self._end_now)

    def draft(self, chunk: Chunk, options: DecodeOptions) -> Draft:
        return self._engine.draft(chunk, options)

    def hear(self, chunk: Chunk, *, ahead: bool) -> Hearing:
        """Begins the recognition of a whole utterance, with what was said before it."""
        context = self._context.before(chunk.start)
        options = replace(self._config.options, context=context)
        config, language = self._config, self._context.language
        return self._engine.hear(chunk, options, language, config.policy, self._request_id, ahead=ahead)

    def _end_now(self) -> None:
        assert self._inbox is not None  # noqa: S101
        self._inbox.interrupt(End(NotReady(STOPPING)), at_once=True)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Runs a part of the session; if it fails, so does the stream."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._outbox.close(error)

    def _cancel(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        if self._utterance is not None:
            self._utterance.cancel()

    async def _work(self, inbox: Inbox) -> None:
        self._config = config = await inbox.config()
        config.validate()
        self._engine.check(config.options, config.policy)
        loop = asyncio.get_running_loop()
        self._ear = await loop.run_in_executor(self._threads, Ear, config.format, config.endpoint_silence)
        reading = self._spawn(inbox.read(self._ear.bytes_per_second))
        error = await self._listen(inbox, self._ear, config)
        reading.cancel()
        for final in list(self._finals):
            await final
        self._outbox.close(error)

    async def _listen(self, inbox: Inbox, ear: Ear, config: StreamConfig) -> SttError | None:
        """Hears the stream to its end; what it ends with."""
        step = max(1, int(STEP_SECONDS * ear.bytes_per_second))
        loop = asyncio.get_running_loop()
        while True:
            await self._outbox.room()
            item = await inbox.take(step)
            before = ear.heard
            if isinstance(item, bytes):
                signs = await loop.run_in_executor(self._threads, ear.hear, item)
            elif isinstance(item, Flush):
                signs = ear.flush()
            elif isinstance(item, End):
                signs = await loop.run_in_executor(self._threads, ear.finish)
            else:
                signs = []
            self._watch.heard(ear.heard - before)
            for sign in signs:
                await self._notice(sign, ear)
                if config.single_utterance and self._number:
                    return None
            if isinstance(item, End):
                return item.error
            if self._draining and not ear.in_utterance:
                return NotReady(STOPPING)
            self._check_size(ear)
            if inbox.empty and self._utterance is not None:
                self._utterance.consider(ear)

    def _check_size(self, ear: Ear) -> None:
        if ear.utterance_bytes > self._limits.max_utterance_bytes:
            limit = self._limits.max_utterance_bytes / 2**20
            raise PayloadTooLarge(f"one utterance has over {limit:g} MiB; send a lower rate or fewer channels")

    async def _notice(self, sign: Sign, ear: Ear) -> None:
        if isinstance(sign, SpeechStarted):
            self._outbox.put(Speech("started", sign.offset))
            self._utterance = self._new_utterance(sign.offset)
        elif isinstance(sign, SpeechEnded):
            assert self._utterance is not None  # noqa: S101
            utterance, self._utterance = self._utterance, None
            self._outbox.put(Speech("ended", sign.offset))
            await self._finish(utterance.end(sign), sign.offset, sign.noticed)
        else:
            await self._decide(sign)

    def _new_utterance(self, started: float) -> Utterance:
        return Utterance(
            self._number,
            started,
            self,
            self._config.options,
            self._show if self._config.interim_results else None,
            self._watch.thinned,
            self._spawn,
            self._clock,
        )

    def _show(self, interim: Interim, until: float) -> None:
        assert self._inbox is not None and self._utterance is not None  # noqa: S101
        now = self._clock()
        first = now - self._inbox.arrived(self._utterance.started) if self._utterance.shown == 1 else None
        if not self._outbox.put(interim):
            self._watch.thinned()
        self._watch.interim(now - self._inbox.arrived(until), first)

    async def _decide(self, sign: PerhapsSpeech) -> None:
        """The model decides whether this was speech, before anything is said of it."""
        hearing = self.hear(sign.chunk, ahead=False)
        try:
            found = await hearing.recognition()
            if found is not None:
                spoken = any(hypothesis.text for hypothesis in found.hypotheses)
            else:
                spoken = bool((await hearing.transcript()).answer.text)
        except BaseException:
            hearing.cancel()
            raise
        if not spoken:
            return
        self._outbox.put(Speech("started", sign.started))
        self._outbox.put(Speech("ended", sign.ended))
        await self._finish(hearing, sign.ended, sign.noticed)

    async def _finish(self, hearing: Hearing, ended: float, noticed: float) -> None:
        """Has the final of the utterance sent, behind those before it."""
        before = self._finals[-1] if self._finals else None
        number, self._number = self._number, self._number + 1
        final = self._spawn(self._final(number, hearing, ended, noticed, before))
        final.add_done_callback(lambda _: hearing.cancel())  # also of a final that is cancelled before it begins
        self._finals.append(final)
        while len(self._finals) > FINALS_AT_A_TIME or (self._finals and self._finals[0].done()):
            await self._finals.popleft()

    async def _final(
        self, number: int, hearing: Hearing, ended: float, noticed: float, before: asyncio.Task[None] | None
    ) -> None:
        assert self._inbox is not None  # noqa: S101
        began = self._clock()
        transcript = await hearing.transcript()
        if before is not None:
            await asyncio.shield(before)
        now = self._clock()
        final = Final(number, transcript, hearing.trace, now - began)
        self._context.add(transcript, ended)
        self._outbox.put(final)
        self._watch.final(final, now - self._inbox.arrived(ended), now - self._inbox.arrived(noticed))
