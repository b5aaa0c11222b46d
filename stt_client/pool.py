"""`SttPool`: several services behind one `transcribe`."""

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
    Iterator,
    Sequence,
)
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar, cast

from stt_client.client import ClientOptions, Pairs, SttClient
from stt_client.deadline import deadline_in, seconds_left
from stt_client.errors import ELSEWHERE, NotReady, UpstreamUnavailable
from stt_client.request import Audio, AudioFormat, CallOptions, PrepareOptions, checked_request_id, prepare
from stt_client.results import Status, Transcript
from stt_client.streaming.options import StreamOptions
from stt_client.streaming.results import Flush, StreamEvent
from stt_client.streaming.stream import PATIENCE_S, live
from stt_client.telemetry import LatencyStats

if TYPE_CHECKING:
    from typing_extensions import Unpack

_T = TypeVar("_T")

FIRST_WORD_S = 0.5
"""How long the first call waits, at most, to hear from each service whether it is SERVING."""

AGAIN_S = 0.1
"""From one round of attempts to the next, at least."""

_log = logging.getLogger(__name__)


@dataclass(eq=False)
class _Member:
    client: SttClient
    serving: bool | None = None
    """What its health watch said last; None: nothing yet."""
    has_served: bool = False
    in_flight: int = 0


class SttPool:
    """Several services of the same kind, for one event loop.

    A call goes to the one with the fewest calls in flight. One that can't be reached or isn't SERVING is left out,
    and taken back when its health watch says so. A call that fails for a reason of the service alone (`ELSEWHERE`)
    is tried on the others, within the call's timeout; the last error is raised. Where none can be reached or
    is ready, but one has been before, the call waits up to `PATIENCE_S` for one to come back.
    The telemetry hook hears of each attempt.

    Args:
        targets: as `SttClient` takes them; the same one twice counts once.
        options: those of `SttClient`, for each.

    Raises:
        ValueError: no target, or one that can't be used.
    """

    def __init__(self, targets: Sequence[str], **options: Unpack[ClientOptions]) -> None:
        if isinstance(targets, str) or not targets:
            raise ValueError("targets takes a sequence of at least one target")
        self._members = [_Member(SttClient(target, **options)) for target in dict.fromkeys(targets)]
        self._turn = 0
        self._tasks: list[asyncio.Task[None]] = []
        self._changed = asyncio.Condition()
        self._settled = len(self._members) == 1
        self._closed = False
        self.latency = LatencyStats()

    async def __aenter__(self) -> SttPool:
        self._follow_health()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Cancels what is in flight and disconnects. Closing twice is fine."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for member in self._members:
            await member.client.close()

    @property
    def targets(self) -> tuple[str, ...]:
        return tuple(member.client.target for member in self._members)

    @property
    def serving(self) -> tuple[str, ...]:
        """The targets whose health watch said last that they are SERVING."""
        return tuple(member.client.target for member in self._members if member.serving)

    async def transcribe(self, audio: Audio, **options: Unpack[CallOptions]) -> Transcript:
        """Transcribes one recording on one of the services; see `SttClient.transcribe`."""
        started = time.monotonic()
        first = self._members[0].client
        timeout = options.pop("timeout", ...)
        deadline = deadline_in(first.timeout if timeout is ... else timeout)
        metadata = options.pop("metadata", ())
        # The same id for each attempt: they are one request to whoever reads the logs.
        request_id = checked_request_id(options.pop("request_id", None))
        request = await prepare(audio, first.max_message_bytes, **cast(PrepareOptions, options))

        def send(client: SttClient) -> Awaitable[Transcript]:
            return client.send(request, deadline=deadline, request_id=request_id, metadata=metadata)

        transcript = await self._on_one(send, deadline)
        self.latency.add(time.monotonic() - started)
        return transcript

    def stream(
        self, audio: AsyncIterable[bytes | Flush], *, encoding: AudioFormat, **options: Unpack[StreamOptions]
    ) -> AsyncGenerator[StreamEvent, None]:
        """Transcribes live audio on one of the services; see `SttClient.stream`.

        One that can't be reached is left for another. With `resume`, so is one whose connection is lost.
        """
        return live(_StreamMembers(self), audio, encoding, **options)

    async def status(self, *, metadata: Pairs = ()) -> Status:
        """The status of one of the services; see `SttClient.status`."""
        deadline = deadline_in(self._members[0].client.timeout)
        return await self._on_one(lambda client: client.status(metadata=metadata), deadline)

    @property
    def has_served(self) -> bool:
        """Whether one of the services has ever been SERVING since the pool began to look."""
        return any(member.has_served for member in self._members)

    async def wait_ready(self, timeout: float | None = 60.0, *, at_least: int = 1) -> None:
        """Returns once `at_least` so many services are SERVING.

        Raises:
            NotReady: they were not within `timeout` seconds.
        """
        self._follow_health()
        try:
            await asyncio.wait_for(self._until(lambda: len(self.serving) >= at_least), timeout)
        except asyncio.TimeoutError:
            raise NotReady(f"{', '.join(self.targets)}: not {at_least} ready within {timeout:g} s") from None

    async def _on_one(self, call: Callable[[SttClient], Awaitable[_T]], deadline: float | None) -> _T:
        self._follow_health()
        await self._settle(deadline)
        patience = deadline_in(PATIENCE_S)
        while True:
            try:
                return await self._on_each(call, deadline)
            except (UpstreamUnavailable, NotReady):
                if not await self._one_is_back(deadline, patience):
                    raise

    async def _one_is_back(self, *deadlines: float | None) -> bool:
        """Whether one of the services says, before any of the deadlines, that it serves.

        In a rolling restart the second one may stop before this pool has found the first one again. Where none has
        ever served there is nothing to wait for.
        """
        left = min(seconds for deadline in deadlines if (seconds := seconds_left(deadline)) is not None)
        if left <= AGAIN_S or not self.has_served:
            return False
        await asyncio.sleep(AGAIN_S)  # a watch may be behind the times, and say of one that just refused that it serves
        try:
            await asyncio.wait_for(self._until(lambda: bool(self.serving)), left - AGAIN_S)
        except asyncio.TimeoutError:
            return False
        return True

    async def _on_each(self, call: Callable[[SttClient], Awaitable[_T]], deadline: float | None) -> _T:
        """The call on one after another, until one takes it."""
        # With all of them out, the watches may be behind the times: an attempt tells.
        left = [member for member in self._members if member.serving is not False] or list(self._members)
        while True:
            try:
                with self._reserved(left) as member:
                    left.remove(member)
                    return await call(member.client)
            except ELSEWHERE as error:
                if not left or seconds_left(deadline) == 0:
                    raise
                _log.info("%s: %s; trying another", member.client.target, error.type)

    @contextmanager
    def _reserved(self, candidates: Sequence[_Member]) -> Iterator[_Member]:
        """The least loaded of them, with one call more in flight."""
        member = self._least_loaded(candidates)
        member.in_flight += 1
        try:
            yield member
        finally:
            member.in_flight -= 1

    @asynccontextmanager
    async def _for_stream(self, failed: Collection[str], deadline: float | None) -> AsyncIterator[SttClient]:
        self._follow_health()
        await self._settle(deadline)
        left = [member for member in self._members if member.client.target not in failed]
        with self._reserved(left or self._members) as member:
            yield member.client

    def _least_loaded(self, candidates: Sequence[_Member]) -> _Member:
        count = len(self._members)

        def rank(member: _Member) -> tuple[int, int, int]:
            health = {True: 0, None: 1, False: 2}[member.serving]
            return health, member.in_flight, (self._members.index(member) - self._turn) % count

        chosen = min(candidates, key=rank)
        self._turn = (self._members.index(chosen) + 1) % count
        return chosen

    def _follow_health(self) -> None:
        if self._closed:
            raise RuntimeError("this pool is closed; make a new one")
        if not self._tasks:
            self._tasks = [asyncio.create_task(self._follow(member)) for member in self._members]

    async def _follow(self, member: _Member) -> None:
        try:
            async with aclosing(member.client.watch_health()) as verdicts:
                async for serving in verdicts:
                    await self._note(member, serving)
        except Exception:
            _log.exception("The health watch of %s ended; it stays in the pool", member.client.target)
            await self._note(member, None)

    async def _note(self, member: _Member, serving: bool | None) -> None:
        if member.serving is not serving:
            _log.info("%s is %s", member.client.target, "serving" if serving else "out")
        async with self._changed:
            member.serving = serving
            member.has_served = member.has_served or serving is True
            self._changed.notify_all()

    async def _until(self, condition: Callable[[], bool]) -> None:
        async with self._changed:
            await self._changed.wait_for(condition)

    async def _settle(self, deadline: float | None) -> None:
        """Once, before the first call: a moment to hear which services are there at all."""
        if self._settled:
            return
        known = self._until(lambda: all(member.serving is not None for member in self._members))
        left = seconds_left(deadline)
        try:
            await asyncio.wait_for(known, FIRST_WORD_S if left is None else min(FIRST_WORD_S, left))
        except asyncio.TimeoutError:
            _log.info("Not all of %s have said whether they serve", ", ".join(self.targets))
        self._settled = True


class _StreamMembers:
    """The pool as streams see it."""

    def __init__(self, pool: SttPool) -> None:
        self._pool = pool

    @property
    def count(self) -> int:
        return len(self._pool.targets)

    @property
    def have_served(self) -> bool:
        return self._pool.has_served

    def one(self, failed: Collection[str], deadline: float | None) -> AbstractAsyncContextManager[SttClient]:
        return self._pool._for_stream(failed, deadline)
