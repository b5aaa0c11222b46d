"""One Realtime session: the caller's events in, the gateway's events out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect

from gateway.http.inbox import Inbox
from gateway.http.sockets import receive, run_until_first
from gateway.openai.realtime.items import Conversation, error_fields, new_id
from gateway.openai.realtime.messages import (
    AppendAudio,
    ClearAudio,
    ClientEvent,
    CommitAudio,
    EventError,
    UpdateSession,
    event_id_of,
    parse_event,
    parse_message,
)
from gateway.openai.realtime.settings import SessionSettings, update
from gateway.openai.realtime.stretch import CallMaker
from gateway.openai.realtime.transcriber import Transcriber
from stt_client.errors import SttError

SESSION_S = 3600.0
"""Seconds without an event of the caller after which a session ends. Pings end it sooner if they are not answered."""

MIN_COMMIT_S = 0.1
"""Seconds of audio that a commit needs."""

COMMIT_EMPTY = "input_audio_buffer_commit_empty"


class SessionExpired(Exception):
    """The caller has sent nothing for `SESSION_S`."""


@dataclass(frozen=True)
class _Commit:
    items_before: int
    """Committed when the caller sent it."""


_Work = bytes | SessionSettings | _Commit | ClearAudio


class RealtimeSession:
    """The session on one accepted WebSocket."""

    def __init__(self, socket: WebSocket, maker: CallMaker, stopping: asyncio.Event) -> None:
        self._socket = socket
        self._maker = maker
        self._stopping = stopping
        self._id = new_id("sess")
        self._settings = SessionSettings()
        self._conversation = Conversation(socket)
        self._transcriber = Transcriber(maker, self._conversation, self._settings, self._note_failure)
        self._inbox: Inbox[_Work] = Inbox()
        self._failure: BaseException | None = None
        self._has_failed = asyncio.Event()
        self._received_at = time.monotonic()
        self._half_sample = b""
        """Start of a sample that was split between two messages."""
        self._seconds = 0.0
        """Of audio received."""
        self._item_start = 0.0
        """Start of the audio that belongs to no item, in seconds of the session."""
        self.idle = True
        """Whether nothing was unfinished when the caller disconnected."""

    async def run(self) -> None:
        """Return once the gateway stops and what was said is transcribed.

        Raises:
            SttError: the service failed for good.
            SessionExpired
            WebSocketDisconnect: the caller disconnected.
        """
        await self._conversation.send("session.created", session=self._describe())
        try:
            await run_until_first(
                self._socket,
                self._wait_for_failure(),
                self._transcribe(),
                self._receive_messages(),
                self._expire(),
                beside=self._end_when_stopping(),
            )
        except WebSocketDisconnect:
            self.idle = self._transcriber.idle
            await self._transcriber.close()
            raise
        finally:
            await self._transcriber.cancel()

    def _describe(self) -> dict[str, Any]:
        return {
            "id": self._id,
            "object": "realtime.transcription_session",
            "type": "transcription",
            "audio": {"input": self._settings.as_dict()},
            "expires_at": int(time.time() + SESSION_S),
        }

    async def _receive_messages(self) -> None:
        """Take messages until the caller disconnects. What is not accepted is answered with an error."""
        while True:
            message = await receive(self._socket)
            self._received_at = time.monotonic()
            if self._stopping.is_set():
                continue
            event_id = None
            try:
                fields = parse_message(message)
                event_id = event_id_of(fields)
                await self._take(parse_event(fields))
            except EventError as error:
                found = error_fields("invalid_argument", error.message, code=error.code, param=error.param)
                await self._conversation.send("error", error={**found, "event_id": event_id})

    async def _take(self, event: ClientEvent) -> None:
        """Take an event. Raises EventError."""
        if isinstance(event, AppendAudio):
            await self._append(event.audio)
        elif isinstance(event, UpdateSession):
            await self._update(event)
        elif isinstance(event, CommitAudio):
            await self._commit()
        else:
            self._half_sample, self._item_start = b"", self._seconds
            await self._inbox.put(event)

    async def _append(self, audio: bytes) -> None:
        audio = self._half_sample + audio
        whole = len(audio) - len(audio) % self._settings.sample_bytes
        self._half_sample = audio[whole:]
        if whole:
            self._seconds += whole / self._settings.bytes_per_second
            await self._inbox.put(audio[:whole])

    async def _commit(self) -> None:
        heard_until = 0.0 if self._settings.manual else self._conversation.heard_until
        seconds = self._seconds - max(self._item_start, heard_until)
        if round(seconds, 6) < MIN_COMMIT_S:
            raise EventError(
                f"Nothing to commit: {seconds:.3f} s of audio since the last item; append {MIN_COMMIT_S:g} s at least.",
                code=COMMIT_EMPTY,
            )
        self._item_start = self._seconds
        await self._inbox.put(_Commit(self._conversation.committed))

    async def _update(self, event: UpdateSession) -> None:
        found = update(self._settings, event.session)
        await self._check_languages(found.languages)
        before, self._settings = self._settings, found.settings
        if found.settings.format != before.format:
            self._half_sample = b""
        if found.settings.manual != before.manual:
            self._item_start = self._seconds
        if not found.settings.same_call(before):
            await self._inbox.put(found.settings)
        if event.older:
            session = {**self._describe(), **self._settings.as_older_dict()}
            await self._conversation.send("transcription_session.updated", session=session)
        else:
            await self._conversation.send("session.updated", session=self._describe())

    async def _check_languages(self, named: Sequence[tuple[str, str]]) -> None:
        """Check that the model knows the languages; if the service does not say which, it refuses them itself."""
        if not named:
            return
        try:
            known = (await self._maker.client.status()).snapshot.get("languages")
        except SttError:
            return
        for path, code in named:
            if known and code not in known:
                raise EventError(f"Language '{code}' is not one of the model's: {', '.join(known)}.", param=path)

    async def _transcribe(self) -> None:
        """Transcribe what the caller has sent, in order, until the gateway stops."""
        async for work in self._inbox.items():
            if isinstance(work, bytes):
                await self._transcriber.add(work)
            elif isinstance(work, SessionSettings):
                await self._transcriber.change(work)
            elif isinstance(work, _Commit):
                await self._transcriber.commit(work.items_before)
            else:
                await self._transcriber.clear()
        await self._transcriber.finish()

    async def _end_when_stopping(self) -> None:
        await self._stopping.wait()
        await self._inbox.end()

    async def _expire(self) -> None:
        while (left := self._received_at + SESSION_S - time.monotonic()) > 0:  # noqa: ASYNC110 - each event moves it
            await asyncio.sleep(left)
        raise SessionExpired

    def _note_failure(self, error: BaseException) -> None:
        self._failure = error
        self._has_failed.set()

    async def _wait_for_failure(self) -> None:
        await self._has_failed.wait()
        if self._failure is not None:
            raise self._failure
