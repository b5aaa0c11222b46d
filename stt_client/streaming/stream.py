"""Live streams: one call, or with `resume` as many as it takes."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Protocol, cast

from protos.stt.v1 import speech_pb2
from stt_client.convert import event_of
from stt_client.deadline import deadline_in, seconds_left
from stt_client.errors import ELSEWHERE
from stt_client.request import AudioFormat, checked_request_id
from stt_client.streaming.audio_source import AudioSource
from stt_client.streaming.call import StreamCall
from stt_client.streaming.options import ENDPOINT_SILENCE_S, ConfigOptions, StreamOptions, stream_config
from stt_client.streaming.results import Final, Flush, StreamEvent
from stt_client.streaming.resume import RESUME, Attempts, Continuity

if TYPE_CHECKING:
    from typing_extensions import Unpack

PATIENCE_S = 5.0
"""How long a call waits, at most, where no service takes it: a restart is over by then, or is no mere restart."""

_log = logging.getLogger(__name__)


class Member(Protocol):
    """A client of one service."""

    target: str

    def start_stream(
        self, deadline: float | None, request_id: str, metadata: Sequence[tuple[str, str]]
    ) -> StreamCall: ...


class Members(Protocol):
    """The services that a stream may go to."""

    @property
    def count(self) -> int: ...

    @property
    def have_served(self) -> bool:
        """Whether one of them has been there before: then it may well come back."""
        ...

    def one(self, failed: Collection[str], deadline: float | None) -> AbstractAsyncContextManager[Member]:
        """The best of them whose target is not in `failed`, for as long as the context lasts."""
        ...


class Alone:
    """One service only."""

    count = 1
    have_served = False

    def __init__(self, member: Member) -> None:
        self._member = member

    @asynccontextmanager
    async def one(self, failed: Collection[str], deadline: float | None) -> AsyncIterator[Member]:
        yield self._member


def live(
    members: Members,
    audio: AsyncIterable[bytes | Flush],
    encoding: AudioFormat,
    **options: Unpack[StreamOptions],
) -> AsyncGenerator[StreamEvent, None]:
    """See `SttClient.stream`. Raises ValueError at once: an option that isn't one."""
    timeout = options.pop("timeout", None)
    metadata = options.pop("metadata", ())
    # The same id for each connection: they are one stream to whoever reads the logs.
    request_id = checked_request_id(options.pop("request_id", None))
    resumes = options.pop("resume", False)
    config = stream_config(encoding, **cast(ConfigOptions, options))
    source = AudioSource(audio, encoding, keep=resumes)

    def start(member: Member, deadline: float | None) -> StreamCall:
        return member.start_stream(deadline, request_id, metadata)

    silence = config.endpoint_silence.ToTimedelta().total_seconds() or ENDPOINT_SILENCE_S
    continuity = Continuity(source, silence) if resumes else None
    return _Stream(members, config, source, start, continuity).events(timeout)


class _Stream:
    """One stream of a caller's.

    Args:
        start: begins a call at a member, until a deadline.
        continuity: joins several connections; None: the stream ends with the one that it had.
    """

    def __init__(
        self,
        members: Members,
        config: speech_pb2.StreamConfig,
        source: AudioSource,
        start: Callable[[Member, float | None], StreamCall],
        continuity: Continuity | None,
    ) -> None:
        self._members = members
        self._config = config
        self._source = source
        self._start = start
        self._continuity = continuity
        self._attempts = Attempts(RESUME)
        self._connected = False
        self._patience = deadline_in(PATIENCE_S)

    async def events(self, timeout: float | None) -> AsyncGenerator[StreamEvent, None]:
        deadline = deadline_in(timeout)
        try:
            while True:
                async with self._members.one(self._attempts.failed, deadline) as member:
                    call = self._start(member, deadline)
                    try:
                        async with aclosing(self._connection(call)) as events:
                            async for event in events:
                                yield event
                        return
                    except ELSEWHERE as error:
                        pause = self._next_pause(member.target, call, deadline)
                        if pause is None:
                            raise
                        _log.info("%s: %s; connecting again in %.2f s", member.target, error.type, pause)
                if self._is_done():
                    return
                await self._attempts.pause(pause, seconds_left(deadline))
        finally:
            await self._source.close()

    async def _connection(self, call: StreamCall) -> AsyncGenerator[StreamEvent, None]:
        """What the caller is to see of one connection."""
        self._attempts.begin()
        if self._continuity is not None:
            self._continuity.connect()
        async with aclosing(call.responses(self._config, self._source)) as responses:
            async for response in responses:
                event = event_of(response)
                if event is not None and self._continuity is not None:
                    event = self._continuity.take(event)
                if isinstance(event, Final):
                    self._attempts.progress()
                if event is not None:
                    yield event

    def _next_pause(self, target: str, call: StreamCall, deadline: float | None) -> float | None:
        """Seconds until the next connection; None: there is to be none."""
        self._connected = self._connected or call.connected
        # The audio may come from a service too: its errors are the caller's.
        if self._source.error is not None or seconds_left(deadline) == 0:
            return None
        if self._connected and self._continuity is None:
            return None
        pause = self._attempts.next_pause(target, self._members.count)
        # Waiting is for who has been there before.
        waits = self._connected or (self._members.have_served and seconds_left(self._patience) != 0)
        return pause if waits or pause == 0 else None

    def _is_done(self) -> bool:
        """Nothing is left to say: what was lost is only the end of the call."""
        if self._continuity is None:
            return False
        enough = self._config.single_utterance and self._continuity.finals > 0
        return enough or self._source.exhausted
