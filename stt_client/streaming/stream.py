"""Live streams: one call, or with `resume` as many as needed."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, cast

from protos.stt.v1 import speech_pb2
from stt_client.convert import event_of
from stt_client.errors import ELSEWHERE
from stt_client.request import AudioFormat, checked_request_id
from stt_client.rpc import deadline_in, seconds_left
from stt_client.streaming.audio_source import AudioSource
from stt_client.streaming.call import StreamCall
from stt_client.streaming.options import ENDPOINT_SILENCE_S, ConfigOptions, StreamOptions, stream_config
from stt_client.streaming.results import Final, Flush, StreamEvent
from stt_client.streaming.resume import RESUME, Attempts, Continuity

if TYPE_CHECKING:
    from typing_extensions import Unpack

PATIENCE_S = 5.0
"""Seconds that a first attempt waits for a service that was SERVING before: long enough for a restart."""

_log = logging.getLogger(__name__)


class Member(Protocol):
    """Client of one service."""

    target: str

    def start_stream(
        self, deadline: float | None, request_id: str, metadata: Sequence[tuple[str, str]]
    ) -> StreamCall: ...


@dataclass(frozen=True)
class Members:
    """Services that a stream may use."""

    count: int
    reserve: Callable[[Collection[str], float | None], AbstractAsyncContextManager[Member]]
    """Picks a member for the duration of the context. Given the targets to avoid if possible, and a deadline."""
    have_served: Callable[[], bool] = lambda: False
    """Whether one of them has been SERVING before, so that it is likely to come back."""


def single_member(member: Member) -> Members:
    """The one service of a client without a pool."""

    @asynccontextmanager
    async def reserve(failed: Collection[str], deadline: float | None) -> AsyncIterator[Member]:
        yield member

    return Members(1, reserve)


def stream_events(
    members: Members,
    audio: AsyncIterable[bytes | Flush],
    encoding: AudioFormat,
    **options: Unpack[StreamOptions],
) -> AsyncGenerator[StreamEvent, None]:
    """Stream to one of `members`; see `SttClient.stream`.

    Raises:
        ValueError: immediately: invalid option.
    """
    timeout = options.pop("timeout", None)
    metadata = options.pop("metadata", ())
    # All connections share the id: in the logs they are one stream.
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
    """One stream.

    Args:
        start: starts a call to a member, with a deadline.
        continuity: joins several connections; None: a connection that is lost ends the stream.
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
        self._pause: float | None = None
        """Seconds until the next connection; None: the stream is complete."""

    async def events(self, timeout: float | None) -> AsyncGenerator[StreamEvent, None]:
        """Connect, and reconnect as long as that may help."""
        deadline = deadline_in(timeout)
        try:
            while True:
                async with (
                    self._members.reserve(self._attempts.failed, deadline) as member,
                    aclosing(self._connection(member, deadline)) as events,
                ):
                    async for event in events:
                        yield event
                if self._pause is None or self._is_done():
                    return
                await self._attempts.pause(self._pause, seconds_left(deadline))
        finally:
            await self._source.close()

    async def _connection(self, member: Member, deadline: float | None) -> AsyncGenerator[StreamEvent, None]:
        """Yield the events of one connection. If it fails and another is to follow, set `_pause`, else raise."""
        self._pause = None
        self._attempts.begin()
        if self._continuity is not None:
            self._continuity.connect()
        call = self._start(member, deadline)
        try:
            async with aclosing(call.responses(self._config, self._source)) as responses:
                async for response in responses:
                    event = self._event(response)
                    if event is not None:
                        yield event
        except ELSEWHERE as error:
            self._pause = self._next_pause(member.target, call, deadline)
            if self._pause is None:
                raise
            _log.info("reconnecting: %s: %s; in %.2f s", member.target, error.type, self._pause)

    def _event(self, response: speech_pb2.StreamTranscribeResponse) -> StreamEvent | None:
        """Event for the caller; None if it is unknown, or a repetition after a reconnect."""
        event = event_of(response)
        if event is not None and self._continuity is not None:
            event = self._continuity.take(event)
        if isinstance(event, Final):
            self._attempts.progress()
        return event

    def _next_pause(self, target: str, call: StreamCall, deadline: float | None) -> float | None:
        """Seconds until the next connection; None: raise the error instead."""
        self._connected = self._connected or call.connected
        # The audio iterator may itself call a service: its errors are the caller's, not the connection's.
        if self._source.error is not None or seconds_left(deadline) == 0:
            return None
        if self._connected and self._continuity is None:
            return None
        pause = self._attempts.next_pause(target, self._members.count)
        # Waiting makes sense only for a service that has been reachable before.
        waits = self._connected or (self._members.have_served() and seconds_left(self._patience) != 0)
        return pause if waits or pause == 0 else None

    def _is_done(self) -> bool:
        """Whether the lost connection had only its end left to send."""
        if self._continuity is None:
            return False
        enough = self._config.single_utterance and self._continuity.finals > 0
        return enough or self._source.exhausted
