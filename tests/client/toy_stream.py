"""A live service without a model: it hears letters in the samples, and utterances in the pauses between them.

The audio is LINEAR16 at 8000 Hz, in frames of 0.1 s: silence, or a letter, whose code is in each of its samples. What
it says follows from the audio alone, so that a stream that was broken and resumed can be held against one that was not.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from protos.stt.v1 import speech_pb2
from stt_client import AudioFormat
from tests.support.contract_messages import duration, transcript

RATE = 8000
FORMAT = AudioFormat("linear16", RATE)
FRAME_S = 0.1
FRAME_BYTES = 1600
ENDPOINT_FRAMES = 6
_MARK = 0x40
"""High byte of a spoken sample: seen in the place of the low one, the stream has lost its alignment."""

Response = speech_pb2.StreamTranscribeResponse


def speech(text: str) -> bytes:
    """A frame for each character; a space is silence."""
    return b"".join(
        bytes(FRAME_BYTES) if letter == " " else bytes((ord(letter), _MARK)) * (FRAME_BYTES // 2) for letter in text
    )


@dataclass
class Ear:
    """One connection's state: frames in, responses out."""

    interims: bool = True
    heard: int = 0
    """Frames."""
    utterance: int = 0
    letters: str = ""
    start: int = 0
    silent: int = 0
    rest: bytes = b""
    late: int = 0
    """Frames between the end of an utterance and its final."""
    waiting: deque[tuple[int, Response]] = field(default_factory=deque)
    """Finals, and when to send them."""

    def hear(self, audio: bytes) -> Iterable[Response]:
        self.rest += audio
        while len(self.rest) >= FRAME_BYTES:
            frame, self.rest = self.rest[:FRAME_BYTES], self.rest[FRAME_BYTES:]
            yield from self._frame(frame)

    def _frame(self, frame: bytes) -> Iterable[Response]:
        self.heard += 1
        assert frame == frame[:2] * (FRAME_BYTES // 2) and frame[1] in (0, _MARK), "the frames are out of step"
        if frame[1]:
            if not self.letters:
                self.start = self.heard - 1
                yield self._speech("TYPE_STARTED", self.start)
            self.letters += " " * min(self.silent, 1) + chr(frame[0])
            self.silent = 0
            if self.interims and len(self.letters) % 3 == 0:
                interim = speech_pb2.Interim(
                    utterance=self.utterance, stable_text=self.letters[:-2], unstable_text=self.letters[-2:]
                )
                yield self._at(Response(interim=interim))
        elif self.letters:
            self.silent += 1
            if self.silent == ENDPOINT_FRAMES:
                yield from self.end()
        yield from self._due(self.heard)

    def finish(self) -> Iterable[Response]:
        """Nothing more is heard."""
        yield from self.end()
        yield from self._due(self.heard + self.late)

    def _due(self, now: int) -> Iterable[Response]:
        while self.waiting and self.waiting[0][0] <= now:
            yield self._at(self.waiting.popleft()[1])

    def end(self) -> Iterable[Response]:
        """Ends the utterance, if there is one."""
        if not self.letters:
            return
        end = self.heard - self.silent
        yield self._speech("TYPE_ENDED", end)
        result = transcript(self.letters)
        result.audio_duration.CopyFrom(duration((end - self.start) * FRAME_S))
        segment = result.segments[0]
        segment.start.CopyFrom(duration(self.start * FRAME_S))
        segment.end.CopyFrom(duration(end * FRAME_S))
        for word in segment.words:
            word.start.CopyFrom(segment.start)
            word.end.CopyFrom(segment.end)
        final = Response(final=speech_pb2.Final(utterance=self.utterance, result=result))
        self.waiting.append((self.heard + self.late, final))
        self.utterance += 1
        self.letters, self.silent = "", 0
        yield from self._due(self.heard)

    def _speech(self, type_: str, frame: int) -> Response:
        kind = speech_pb2.SpeechEvent.Type.Value(type_)
        return self._at(Response(speech_event=speech_pb2.SpeechEvent(type=kind, offset=duration(frame * FRAME_S))))

    def _at(self, response: Response) -> Response:
        response.audio_processed.CopyFrom(duration(self.heard * FRAME_S))
        return response


@dataclass
class Toy:
    """The service. `break_at` is asked before each event and each message; it may abort the call."""

    break_at: Callable[[Any, int, int], Awaitable[None]] | None = None
    """Given the context, and the events sent and the bytes heard on this connection."""
    late: int = 0
    configs: list[speech_pb2.StreamConfig] = field(default_factory=list)
    received: list[bytes] = field(default_factory=list)
    """All audio of each connection."""
    largest: int = 0
    """Bytes of the largest message."""
    heard: asyncio.Event = field(default_factory=asyncio.Event)
    """Set with the first audio."""
    half_closed: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, requests: Any, context: Any) -> AsyncIterator[Response]:
        sent, index = 0, len(self.received)
        self.received.append(b"")
        ear = Ear(late=self.late)
        async for request in requests:
            if request.WhichOneof("payload") == "config":
                self.configs.append(request.config)
                ear.interims = request.config.interim_results
                continue
            self.received[index] += request.audio
            self.largest = max(self.largest, len(request.audio))
            await self._maybe_break(context, sent, len(self.received[index]))
            for said in ear.hear(request.audio) if request.audio else ear.end():
                await self._maybe_break(context, sent, len(self.received[index]))
                sent += 1
                yield said
                if said.HasField("final") and self.configs[-1].single_utterance:
                    return
            self.heard.set()
        self.half_closed.set()
        for said in ear.finish():
            await self._maybe_break(context, sent, len(self.received[index]))
            sent += 1
            yield said

    async def _maybe_break(self, context: Any, sent: int, heard: int) -> None:
        if self.break_at is not None:
            await self.break_at(context, sent, heard)
