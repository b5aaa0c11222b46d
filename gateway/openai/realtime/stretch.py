"""A stretch of audio with the same settings, and the calls to the service that transcribe it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from starlette.types import Scope

from gateway.http.access_log import set_called, set_logged_by_service
from gateway.http.caller import Metadata
from gateway.http.errors import public_error
from gateway.http.headers import request_id_of
from gateway.http.inbox import Inbox
from gateway.openai.realtime.items import error_fields
from gateway.openai.realtime.settings import TRANSCRIPTION_PATH, SessionSettings
from gateway.openai.realtime.turns import Turns
from stt_client import SttClient
from stt_client.errors import (
    Cancelled,
    DeadlineExceeded,
    InvalidArgument,
    NotReady,
    OutOfMemory,
    Overloaded,
    RateLimited,
    SttError,
    Unauthenticated,
    UpstreamUnavailable,
)

ENDS_SESSION = (
    Unauthenticated,
    RateLimited,
    Overloaded,
    Cancelled,
    NotReady,
    OutOfMemory,
    UpstreamUnavailable,
)
"""Errors of the service rather than of what was said: the next item would fail too."""

_PARAMS = {
    "options.language": f"{TRANSCRIPTION_PATH}.language",
    "options.candidate_languages": f"{TRANSCRIPTION_PATH}.languages",
    "options.hotwords": f"{TRANSCRIPTION_PATH}.keywords",
    "options.prompt": f"{TRANSCRIPTION_PATH}.prompt",
}
"""Setting by the field of the request message that the service names in an error."""

RECENT_S = 10.0
"""Seconds after a pause for which audio is kept that a call may not have received."""
RECENT_BYTES = 1024 * 1024
"""Most of that audio."""


@dataclass(frozen=True)
class CallMaker:
    """Makes calls on the caller's behalf."""

    client: SttClient
    metadata: Metadata
    scope: Scope
    """Of the WebSocket."""


class RecentAudio:
    """Audio that was sent after the longest pause of a call.

    After a pause of `STREAM_IDLE_TIMEOUT_S` the service ends the call, and ignores what is sent while the last results
    are on their way. The pause before that audio is then longer than any before, and than the one after it.
    """

    def __init__(self) -> None:
        self._sent_at: float | None = None
        self._longest_pause = 0.0
        self._since = 0.0
        self._bytes = 0
        self._chunks: list[bytes] = []

    def add(self, chunk: bytes) -> None:
        """Note that a chunk is sent now."""
        now = time.monotonic()
        # Before the first chunk, the call may still be connecting.
        pause = 0.0 if self._sent_at is None else now - self._sent_at
        self._sent_at = now
        if pause > self._longest_pause:
            self._longest_pause, self._since, self._bytes = pause, now, 0
            self._chunks.clear()
        elif now - self._since > RECENT_S or self._bytes > RECENT_BYTES:
            self._chunks.clear()
            return
        self._chunks.append(chunk)
        self._bytes += len(chunk)

    def ignored(self) -> Sequence[bytes]:
        """What a call ignored that has just ended because of a pause."""
        if self._sent_at is None or time.monotonic() - self._sent_at > self._longest_pause:
            return ()
        return self._chunks


class Stretch:
    """Audio up to a commit or a change of the settings.

    A call begins with the audio, and ends with the stretch or after a pause; the next audio then begins another.

    Args:
        start: seconds of the session before this audio.
    """

    def __init__(self, maker: CallMaker, settings: SessionSettings, turns: Turns, start: float) -> None:
        self._maker = maker
        self._settings = settings
        self._turns = turns
        self._start = start
        self._sent = 0
        """Bytes of this audio that calls have received."""
        self._recent = RecentAudio()
        self._inbox: Inbox[bytes] = Inbox(limit=1)
        self.task = asyncio.ensure_future(self._run())
        """Ends with the stretch. Raises SttError if the session cannot go on."""

    async def add(self, audio: bytes) -> None:
        """Add audio, once the call has taken what was added before."""
        await self._inbox.put(audio)

    async def end(self) -> None:
        """Add no more audio."""
        await self._inbox.end()

    async def finish(self) -> None:
        """End the stretch, and return after its last event. Raises SttError if the session cannot go on."""
        await self.end()
        await self.task

    async def discard(self) -> None:
        """End the stretch before the audio that no call has received, and return after the last event."""
        await self._inbox.discard()
        await self.task

    async def cancel(self) -> None:
        """End the stretch at once."""
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    async def _run(self) -> None:
        try:
            while await self._inbox.ready():
                await self._call()
        finally:
            await self._inbox.discard()  # else `add` could wait for room forever

    @property
    def _sent_until(self) -> float:
        """End of the audio that calls have received, in seconds of the session."""
        return self._start + self._sent / self._settings.bytes_per_second

    async def _call(self) -> None:
        """Make one call. Raises SttError if the session cannot go on."""
        self._turns.begin_call(self._sent_until)
        self._recent = RecentAudio()
        try:
            await self._transcribe()
        except DeadlineExceeded as error:
            await self._end_idle_call(error)
        except SttError as error:
            await self._fail(error)

    async def _end_idle_call(self, error: SttError) -> None:
        """Go on after STREAM_IDLE_TIMEOUT_S without audio. A manual item goes on too."""
        if not self._settings.manual:
            await self._turns.fail(error_fields(*public_error(error)))
        ignored = self._recent.ignored()
        self._sent -= sum(map(len, ignored))
        await self._inbox.put_back(ignored)

    async def _transcribe(self) -> None:
        events = self._maker.client.stream(
            self._audio(),
            encoding=self._settings.format,
            timeout=None,
            request_id=request_id_of(self._maker.scope),
            metadata=self._maker.metadata,
            **self._settings.stream_options(),
        )
        set_called(self._maker.scope)
        async with aclosing(events):
            async for event in events:
                set_logged_by_service(self._maker.scope)
                await self._turns.take(event, self._sent_until)

    async def _audio(self) -> AsyncIterator[bytes]:
        async for chunk in self._inbox.items():
            self._recent.add(chunk)
            self._sent += len(chunk)
            yield chunk

    async def _fail(self, error: SttError) -> None:
        """Let the items of the call fail. Raises the error if the session cannot go on."""
        fields = error_fields(*public_error(error), param=_PARAMS.get(error.invalid_field))
        refused = isinstance(error, InvalidArgument)
        goes_on = (self._turns.pending or refused) and not isinstance(error, ENDS_SESSION)
        await (self._turns.refuse(fields) if refused else self._turns.fail(fields))
        if not goes_on:
            raise error
        if refused or self._settings.manual:
            await self._inbox.discard()  # the rest would be refused too, or transcribed in vain
