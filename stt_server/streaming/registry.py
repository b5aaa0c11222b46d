"""All live streams of a service: admission and draining."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Executor
from contextlib import asynccontextmanager, contextmanager

from stt_server.errors import Overloaded
from stt_server.streaming.draining import DrainSignal
from stt_server.streaming.events import Message, StreamObserver
from stt_server.streaming.inbox import read_config
from stt_server.streaming.recognition import StreamBackend, StreamRecognizer
from stt_server.streaming.segmenter import UtteranceSegmenter
from stt_server.streaming.session import Limits, Session, Shared


class Streams:
    """Opens live streams, up to a limit."""

    def __init__(self, limit: int, observer: StreamObserver, threads: Executor) -> None:
        """
        Args:
            threads: run voice activity detection, off the event loop.
        """
        self.limit = limit
        """May be lowered while streams are open: none of them ends."""
        self._shared = Shared(observer, threads, DrainSignal())
        self._open = 0

    @asynccontextmanager
    async def open(
        self, messages: AsyncIterator[Message], backend: StreamBackend, limits: Limits, request_id: str
    ) -> AsyncIterator[Session]:
        """Admit a stream, wait for its config, and give its session. The stream counts until the context exits.

        Raises:
            Overloaded: the limit is reached.
            InvalidArgument: the first message is not a config, or one of its values is not accepted.
            DeadlineExceeded: no config arrived.
            NotReady: the service began to stop before the config arrived.
        """
        with self._admitted():
            yield await self._shared.draining.interrupt(self._start(messages, backend, limits, request_id))

    def drain(self, within_s: float) -> None:
        """End each stream after its current utterance, and after `within_s` seconds at the latest."""
        self._shared.draining.begin(within_s)

    @contextmanager
    def _admitted(self) -> Iterator[None]:
        if self._open >= self.limit:
            raise Overloaded(f"live-stream limit reached ({self.limit}); retry later or use another server", "streams")
        self._open += 1
        self._shared.observer.opened()
        try:
            yield
        finally:
            self._open -= 1
            self._shared.observer.closed()

    async def _start(
        self, messages: AsyncIterator[Message], backend: StreamBackend, limits: Limits, request_id: str
    ) -> Session:
        config = await read_config(messages, limits.idle_timeout_s)
        config.validate()
        recognizer = StreamRecognizer(backend, config.options, config.policy, request_id)
        segmenter = await asyncio.get_running_loop().run_in_executor(
            self._shared.threads, UtteranceSegmenter, config.format, config.endpoint_silence
        )
        return Session(config, messages, segmenter, recognizer, limits, self._shared)
