"""One Wyoming connection.

    caller                                   gateway
    describe                             ->
                                         <-  info
    transcribe                           ->
    audio-start, audio-chunk, ...        ->
    audio-stop                           ->
                                         <-  transcript-start, transcript-chunk, ..., transcript, transcript-stop

`transcribe` holds for the next `audio-stop`. Without it the language is detected, and without `audio-start` the first
`audio-chunk` begins the audio. An error is the last event.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from contextlib import aclosing

from wyoming.asr import Transcribe
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.event import Event
from wyoming.info import Describe
from wyoming.ping import Ping, Pong

from gateway.http.errors import Refusal, public_error
from gateway.http.uploads import BodyDeadline
from gateway.wyoming.access_log import AccessLog
from gateway.wyoming.caller import Caller, TranscriptEvents
from gateway.wyoming.calls import ServiceCalls, Utterance
from gateway.wyoming.framing import read_event
from gateway.wyoming.messages import SpeechRequest, audio_format, speech_request
from stt_client.errors import EmptyAudio, SttError
from stt_client.results import SettledSegments, Transcript

logger = logging.getLogger("gateway")

IDLE_TIMEOUT_S = 600.0
"""Seconds without an event after which a connection without audio is closed."""

LAST_AUDIO_S = 0.5
"""Seconds that an idle connection stays open once it is to be stopped, for audio in transit."""


class Connection:
    """The events of one caller, and the answers to them."""

    def __init__(
        self, reader: asyncio.StreamReader, caller: Caller, calls: ServiceCalls, log: AccessLog, audio_timeout_s: float
    ) -> None:
        """
        Args:
            audio_timeout_s: longest pause between chunks of audio, in seconds; see `BodyDeadline`.
        """
        self._reader = reader
        self._caller = caller
        self._calls = calls
        self._log = log
        self._audio_timeout_s = audio_timeout_s
        self._deadline = BodyDeadline(audio_timeout_s)
        self._request = SpeechRequest()
        self._utterance: Utterance | None = None
        self._limit_bytes = 0
        self._complete: asyncio.Queue[Utterance] = asyncio.Queue()
        """Utterances to transcribe: one at most."""
        self._failed: Utterance | None = None
        """The utterance that an error is about."""
        self._idle = asyncio.Event()
        self._idle.set()
        self._stopping = asyncio.Event()
        self.idle_since = time.monotonic()
        """Time of the last event, on the monotonic clock."""

    @property
    def is_idle(self) -> bool:
        """Whether the caller has neither begun audio nor is waiting for a transcript."""
        return self._idle.is_set()

    @property
    def is_stopping(self) -> bool:
        return self._stopping.is_set()

    def stop(self) -> None:
        """Close the connection as soon as it is idle."""
        self._stopping.set()

    async def run(self) -> None:
        """Answer events until the caller disconnects, an error occurs, or `stop`; then close the connection."""
        with contextlib.suppress(ConnectionError, asyncio.TimeoutError):  # has disconnected, or does not read
            try:
                await self._serve()
            except Refusal as refusal:
                await self._refuse(refusal.type, refusal.message)
            except SttError as error:
                type_, message = public_error(error)
                self._log.failed(self._failed, error, type_, message)
                await self._send_last(type_, message)
            except asyncio.CancelledError:
                # Only the server cancels a connection: at the end of the grace period.
                await self._caller.send_error("not_ready", "The gateway is stopping; reconnect.")
            except (ConnectionError, asyncio.TimeoutError):
                raise
            except Exception:
                logger.exception("unexpected error")
                await self._refuse("internal", "Internal error.")
        await self._caller.close()

    async def refuse(self, type_: str, message: str) -> None:
        """Send an error instead of answers, and close the connection.

        Args:
            type_: key of `protos.stt.v1.errors.ERRORS`.
        """
        with contextlib.suppress(ConnectionError, asyncio.TimeoutError):
            await self._refuse(type_, message)
        await self._caller.close()

    async def _refuse(self, type_: str, message: str) -> None:
        self._log.refused(self._failed, type_, message)
        await self._send_last(type_, message)

    async def _send_last(self, type_: str, message: str) -> None:
        await self._caller.send_error(type_, message)
        await self._caller.drain()

    async def _serve(self) -> None:
        """Return once the connection is to be closed. Raises what is to be the last event."""
        tasks = [asyncio.ensure_future(part) for part in (self._receive(), self._answer_all(), self._until_unused())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _until_unused(self) -> None:
        """Return once the connection has been idle for too long, or is idle and to be stopped."""
        while True:
            await self._idle.wait()
            left_s = self.idle_since + IDLE_TIMEOUT_S - time.monotonic()
            if self.is_stopping:
                await asyncio.sleep(LAST_AUDIO_S)
            if self.is_idle and (self.is_stopping or left_s <= 0):
                return
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), left_s)

    async def _receive(self) -> None:
        """Take events until the caller disconnects.

        Raises:
            Refusal, SttError: the connection has to end. Audio that is complete has its transcript by then.
        """
        try:
            while (event := await self._next_event()) is not None:
                self.idle_since = time.monotonic()
                await self._take(event)
        except (Refusal, SttError):
            await self._complete.join()
            self._failed = self._utterance
            raise

    async def _next_event(self) -> Event | None:
        if self._utterance is None:
            return await read_event(self._reader)
        try:
            return await asyncio.wait_for(read_event(self._reader), max(0.0, self._deadline.left_s()))
        except asyncio.TimeoutError:
            message = "The audio arrived too slowly; send audio-stop at its end."
            raise Refusal("deadline_exceeded", message) from None

    async def _take(self, event: Event) -> None:
        if Describe.is_type(event.type):
            await self._caller.send(await self._calls.info())
        elif Ping.is_type(event.type):
            text = event.data.get("text")
            await self._caller.send(Pong(text if isinstance(text, str) else None))
        elif Transcribe.is_type(event.type):
            self._request = speech_request(event)
        elif AudioStart.is_type(event.type):
            if self._utterance is not None:
                raise Refusal("invalid_argument", "audio-start within audio; send audio-stop first.")
            await self._begin(event)
        elif AudioChunk.is_type(event.type):
            self._add(self._utterance or await self._begin(event), event)
        elif AudioStop.is_type(event.type):
            await self._end()

    async def _begin(self, event: Event) -> Utterance:
        utterance = Utterance(audio_format(event))
        await self._complete.join()  # one at a time, which bounds the audio that a connection holds
        self._idle.clear()
        self._utterance = utterance
        self._limit_bytes = await self._calls.upload_limit(utterance)
        self._deadline = BodyDeadline(self._audio_timeout_s)
        return utterance

    def _add(self, utterance: Utterance, event: Event) -> None:
        if audio_format(event) != utterance.format:
            raise Refusal("invalid_argument", "audio-chunk: another format within audio; send audio-stop first.")
        payload = event.payload or b""
        if len(utterance.audio) + len(payload) > self._limit_bytes:
            raise Refusal("payload_too_large", f"The audio exceeds the limit of {self._limit_bytes} bytes.")
        utterance.audio += payload
        self._deadline.add(len(payload))

    async def _end(self) -> None:
        request, self._request = self._request, SpeechRequest()
        if self._utterance is None:  # no audio
            await self._complete.join()
            await TranscriptEvents(self._caller).finish(None)
        else:
            self._utterance.request = request
            self._complete.put_nowait(self._utterance)
            self._utterance = None

    async def _answer_all(self) -> None:
        while True:
            utterance = await self._complete.get()
            try:
                await self._answer(utterance)
            except SttError:
                self._failed = utterance
                raise
            self._log.answered(utterance)
            self.idle_since = time.monotonic()
            self._idle.set()
            self._complete.task_done()

    async def _answer(self, utterance: Utterance) -> None:
        answer, result = TranscriptEvents(self._caller), None
        try:
            async with aclosing(self._calls.transcribe(utterance)) as events:
                async for event in events:
                    if isinstance(event, Transcript):
                        result = event
                    elif isinstance(event, SettledSegments):
                        await answer.add(event.segments)
        except EmptyAudio:
            pass  # no samples: nothing was said
        await answer.finish(result)
