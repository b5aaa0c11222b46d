"""`SyncSttClient`: blocking client of one service."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from stt_client.client import ClientOptions, SttClient
from stt_client.errors import Cancelled
from stt_client.request import Audio, AudioFormat, CallOptions
from stt_client.results import Metrics, Status, TranscribeEvent, Transcript
from stt_client.rpc import Pairs
from stt_client.streaming.options import StreamOptions
from stt_client.streaming.results import Flush, StreamEvent
from stt_client.telemetry import LatencyStats

if TYPE_CHECKING:
    from typing_extensions import Unpack

_T = TypeVar("_T")


class SyncSttClient:
    """`SttClient` with blocking methods; thread-safe.

    A private thread runs its event loop. The telemetry hook is called in that thread and must neither block nor call
    this client. Close the client, or use it as a context manager. Arguments, results and errors are those of
    `SttClient`.
    """

    def __init__(self, target: str = "localhost:50051", **options: Unpack[ClientOptions]) -> None:
        self._client = SttClient(target, **options)
        self._loop = asyncio.new_event_loop()
        self._lock = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._loop.run_forever, name="stt-client", daemon=True)
        self._thread.start()

    def __enter__(self) -> SyncSttClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def target(self) -> str:
        return self._client.target

    @property
    def latency(self) -> LatencyStats:
        return self._client.latency

    def transcribe(self, audio: Audio, **options: Unpack[CallOptions]) -> Transcript:
        """See `SttClient.transcribe`."""
        return self._run(lambda: self._client.transcribe(audio, **options))

    def transcribe_with_progress(
        self, audio: Audio, **options: Unpack[CallOptions]
    ) -> Generator[TranscribeEvent, None, None]:
        """See `SttClient.transcribe_with_progress`."""
        return self._iterate(self._client.transcribe_with_progress(audio, **options))

    def stream(
        self, audio: Iterable[bytes | Flush], *, encoding: AudioFormat, **options: Unpack[StreamOptions]
    ) -> Generator[StreamEvent, None, None]:
        """See `SttClient.stream`. The audio iterator is read in a separate thread, and closed with the generator."""
        events = self._client.stream(_read(audio), encoding=encoding, **options)
        return self._iterate(events)

    def status(self, *, metadata: Pairs = ()) -> Status:
        """See `SttClient.status`."""
        return self._run(lambda: self._client.status(metadata=metadata))

    def metrics(self) -> Metrics:
        """See `SttClient.metrics`."""
        return self._run(lambda: self._client.metrics())

    def health(self, service: str = "", *, timeout: float = 5.0) -> bool:
        """See `SttClient.health`."""
        return self._run(lambda: self._client.health(service, timeout=timeout))

    def wait_ready(self, timeout: float | None = 60.0) -> None:
        """See `SttClient.wait_ready`."""
        return self._run(lambda: self._client.wait_ready(timeout))

    def close(self) -> None:
        """End calls in flight in other threads with `Cancelled`, and disconnect. Idempotent."""
        self._check_thread()
        with self._lock:
            if self._closed:
                return
            self._closed = True
        asyncio.run_coroutine_threadsafe(self._shut_down(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, call: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        self._check_thread()
        # Under the lock: a coroutine submitted to a stopped loop never runs, and waiting for it never ends.
        with self._lock:
            if self._closed:
                raise RuntimeError("the client is closed; create a new one")
            future = asyncio.run_coroutine_threadsafe(call(), self._loop)
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            raise Cancelled("the client was closed during the call") from None
        except KeyboardInterrupt:
            future.cancel()
            raise

    def _iterate(self, events: AsyncGenerator[_T, None]) -> Generator[_T, None, None]:
        async def next_event() -> _T | None:
            return await anext(events, None)

        try:
            while (event := self._run(next_event)) is not None:
                yield event
        finally:
            # Closing the client has closed its streams.
            if not self._closed:
                self._run(events.aclose)

    def _check_thread(self) -> None:
        if threading.current_thread() is self._thread:
            raise RuntimeError("called from the client's own thread: a telemetry hook must not call its client")

    async def _shut_down(self) -> None:
        await self._client.close()
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
        await self._loop.shutdown_asyncgens()
        await self._loop.shutdown_default_executor()


async def _read(audio: Iterable[bytes | Flush]) -> AsyncGenerator[bytes | Flush, None]:
    """Yield the chunks of an iterable that may block."""
    chunks = iter(audio)
    try:
        while (chunk := await asyncio.to_thread(next, chunks, None)) is not None:
            yield chunk
    finally:
        # ValueError: the generator is still running, blocked in its thread, and can't be closed.
        with contextlib.suppress(ValueError):
            getattr(chunks, "close", lambda: None)()
