"""`SttPool`: asyncio client of several services."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Sequence,
)
from contextlib import aclosing, asynccontextmanager
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar

from protos.stt.v1 import speech_pb2
from stt_client.client import ClientOptions, SttClient
from stt_client.errors import ELSEWHERE, NotReady, UpstreamUnavailable
from stt_client.event_relay import EventRelay
from stt_client.pool_members import PoolMembers
from stt_client.request import Audio, AudioFormat, CallOptions, SendOptions
from stt_client.results import Limits, Status, TranscribeEvent, Transcript, smallest
from stt_client.rpc import Pairs, deadline_in, seconds_left
from stt_client.streaming.options import StreamOptions
from stt_client.streaming.results import Flush, StreamEvent
from stt_client.streaming.stream import PATIENCE_S, Members, stream_events
from stt_client.telemetry import LatencyStats

if TYPE_CHECKING:
    from typing_extensions import Unpack

_T = TypeVar("_T")

RETRY_PAUSE_S = 0.1
"""Shortest pause between two rounds of attempts. Seconds."""

_log = logging.getLogger(__name__)


class SttPool:
    """Client of several equivalent services, for one event loop.

    Each call goes to the service with the fewest calls in flight. A service that can't be reached or isn't SERVING is
    skipped until its health watch reports SERVING again. A call that fails because of the service (`ELSEWHERE`) is
    tried on the others, within the call's timeout; the last error is raised. If all are unreachable or not ready, and
    one has been SERVING before, the call waits up to `PATIENCE_S` for one to come back.
    The telemetry hook is called for each attempt.

    Args:
        targets: see `SttClient`; duplicates are ignored.
        options: keyword arguments of `SttClient`, for each service.

    Raises:
        ValueError: `targets` is empty, or an argument is invalid.
    """

    def __init__(self, targets: Sequence[str], **options: Unpack[ClientOptions]) -> None:
        if isinstance(targets, str) or not targets:
            raise ValueError("targets must be a non-empty sequence of strings")
        self._members = PoolMembers([SttClient(target, **options) for target in dict.fromkeys(targets)])
        self.latency = LatencyStats()

    async def __aenter__(self) -> SttPool:
        self._members.follow_health()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Cancel calls in flight and disconnect. Idempotent."""
        await self._members.close()

    @property
    def targets(self) -> tuple[str, ...]:
        return self._members.targets

    @property
    def serving(self) -> tuple[str, ...]:
        """Targets that are SERVING according to their health watches."""
        return self._members.serving

    async def transcribe(self, audio: Audio, **options: Unpack[CallOptions]) -> Transcript:
        """Transcribe one recording; see `SttClient.transcribe`. All services share the parts of a long one."""
        # Imported here: it takes numpy, which other uses of the client do without.
        from stt_client.recordings.splitting import job_of, last_of, transcribe

        return await last_of(transcribe(self, await job_of(audio, options, live=False)))

    async def transcribe_with_progress(
        self, audio: Audio, **options: Unpack[CallOptions]
    ) -> AsyncGenerator[TranscribeEvent, None]:
        """Transcribe one recording; see `SttClient.transcribe_with_progress`."""
        from stt_client.recordings.splitting import job_of, transcribe

        async with aclosing(transcribe(self, await job_of(audio, options, live=True))) as events:
            async for event in events:
                yield event

    async def send(self, request: speech_pb2.TranscribeRequest, **call: Unpack[SendOptions]) -> Transcript:
        """Send a request message that is already built; see `transcribe`."""
        started = time.monotonic()
        transcript = await self._on_one(lambda client: client.send(request, **call), call["deadline"])
        self.latency.add(time.monotonic() - started)
        return transcript

    async def send_with_progress(
        self, request: speech_pb2.TranscribeRequest, **call: Unpack[SendOptions]
    ) -> AsyncGenerator[TranscribeEvent, None]:
        """Send a request message that is already built; see `transcribe_with_progress`.

        If another service has to begin again, progress is yielded once it exceeds what was yielded before, and so are
        segments.
        """
        started = time.monotonic()
        relay = EventRelay()

        async def pump(client: SttClient) -> None:
            async with aclosing(client.send_with_progress(request, **call)) as events:
                async for event in events:
                    relay.put(event)

        task = asyncio.create_task(self._on_one(pump, call["deadline"]))
        async with aclosing(relay.events(task)) as events:
            async for event in events:
                yield event
        self.latency.add(time.monotonic() - started)

    def stream(
        self, audio: AsyncIterable[bytes | Flush], *, encoding: AudioFormat, **options: Unpack[StreamOptions]
    ) -> AsyncGenerator[StreamEvent, None]:
        """Transcribe live audio on one of the services; see `SttClient.stream`.

        If it can't be reached, another is tried; with `resume`, also if its connection is lost later.
        """
        members = Members(len(self._members), self._reserved_for_stream, lambda: self.has_served)
        return stream_events(members, audio, encoding, **options)

    async def status(self, *, metadata: Pairs = ()) -> Status:
        """Return the status of one of the services; see `SttClient.status`."""
        deadline = deadline_in(self._members.first.timeout)
        return await self._on_one(lambda client: client.status(metadata=metadata), deadline)

    async def limits(self) -> Limits | None:
        """Return the smallest limits of the services that answer; None if none does."""
        await self._members.settle(None)
        asked = [member.client.limits() for member in self._members if member.serving is not False]
        known = [limits for limits in await asyncio.gather(*asked) if limits is not None]
        return smallest(known) if known else None

    @property
    def timeout(self) -> float | None:
        """Default timeout of a call, in seconds."""
        return self._members.first.timeout

    @property
    def max_message_bytes(self) -> int:
        return self._members.first.max_message_bytes

    @property
    def has_served(self) -> bool:
        """Whether any of the services has been SERVING at some time."""
        return any(member.has_served for member in self._members)

    async def wait_ready(self, timeout: float | None = 60.0, *, at_least: int = 1) -> None:
        """Wait until `at_least` services are SERVING.

        Args:
            timeout: seconds; None: no limit.

        Raises:
            NotReady: they were not within `timeout`.
        """
        self._members.follow_health()
        try:
            await asyncio.wait_for(self._members.until(lambda: len(self.serving) >= at_least), timeout)
        except asyncio.TimeoutError:
            raise NotReady(
                f"{len(self.serving)} of {', '.join(self.targets)} ready within {timeout:g} s; needed {at_least}"
            ) from None

    async def _on_one(self, call: Callable[[SttClient], Awaitable[_T]], deadline: float | None) -> _T:
        await self._members.settle(deadline)
        patience = deadline_in(PATIENCE_S)
        while True:
            try:
                return await self._on_each(call, deadline)
            except (UpstreamUnavailable, NotReady):
                if not await self._comes_back(deadline, patience):
                    raise

    async def _comes_back(self, *deadlines: float | None) -> bool:
        """Wait until one of the services is SERVING again; False if a deadline passes or none has ever been.

        In a rolling restart the second service may stop before this pool has noticed that the first one is back.
        """
        left = min(seconds for deadline in deadlines if (seconds := seconds_left(deadline)) is not None)
        if left <= RETRY_PAUSE_S or not self.has_served:
            return False
        await asyncio.sleep(RETRY_PAUSE_S)  # A watch may still report SERVING for a service that has just refused.
        try:
            await asyncio.wait_for(self._members.until(lambda: bool(self.serving)), left - RETRY_PAUSE_S)
        except asyncio.TimeoutError:
            return False
        return True

    async def _on_each(self, call: Callable[[SttClient], Awaitable[_T]], deadline: float | None) -> _T:
        """Try the call on one service after another until one answers."""
        left = self._members.candidates()
        while True:
            try:
                with self._members.reserved(left) as member:
                    left.remove(member)
                    return await call(member.client)
            except ELSEWHERE as error:
                if not left or seconds_left(deadline) == 0:
                    raise
                _log.info("trying another service: %s: %s", member.client.target, error.type)

    @asynccontextmanager
    async def _reserved_for_stream(self, failed: Collection[str], deadline: float | None) -> AsyncIterator[SttClient]:
        await self._members.settle(deadline)
        left = [member for member in self._members if member.client.target not in failed]
        with self._members.reserved(left or list(self._members)) as member:
            yield member.client
