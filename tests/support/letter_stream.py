"""Scripted stream without a model: recognizes letters in the samples, and utterances by the pauses between them.

The audio is LINEAR16 at 8000 Hz, in frames of 0.1 s: silence, or a letter, whose code is in each of its samples. The
events depend on the audio alone, so that a resumed stream can be compared with an uninterrupted one.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from protos.stt.v1 import speech_pb2
from stt_client import AudioFormat, Final, Flush, StreamEvent
from tests.support.contract_messages import duration, transcript

WAIT_S = 20
"""Timeout of waits that normally take milliseconds."""
RATE = 8000
FORMAT = AudioFormat("linear16", RATE)
FRAME_S = 0.1
FRAME_BYTES = 1600
ENDPOINT_FRAMES = 6
_MARK = 0x40
"""High byte of a spoken sample. As the low byte it shows that the stream has lost its alignment."""

Response = speech_pb2.StreamTranscribeResponse


def speech(text: str) -> bytes:
    """One frame per character; a space is silence."""
    return b"".join(
        bytes(FRAME_BYTES) if letter == " " else bytes((ord(letter), _MARK)) * (FRAME_BYTES // 2) for letter in text
    )


@dataclass
class LetterRecognizer:
    """State of one connection: frames in, responses out."""

    interims: bool = True
    endpoint_frames: int = ENDPOINT_FRAMES
    processed: int = 0
    """Frames so far."""
    utterance: int = 0
    letters: str = ""
    start: int = 0
    silent: int = 0
    rest: bytes = b""
    late: int = 0
    """Frames between the end of an utterance and its final."""
    waiting: deque[tuple[int, Response]] = field(default_factory=deque)
    """Finals, and the frames at which to send them."""

    def feed(self, audio: bytes) -> Iterable[Response]:
        self.rest += audio
        while len(self.rest) >= FRAME_BYTES:
            frame, self.rest = self.rest[:FRAME_BYTES], self.rest[FRAME_BYTES:]
            yield from self._frame(frame)

    def _frame(self, frame: bytes) -> Iterable[Response]:
        self.processed += 1
        assert frame == frame[:2] * (FRAME_BYTES // 2) and frame[1] in (0, _MARK), "the frames are out of step"
        if frame[1]:
            if not self.letters:
                self.start = self.processed - 1
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
            if self.silent == self.endpoint_frames:
                yield from self.end()
        yield from self._due(self.processed)

    def finish(self) -> Iterable[Response]:
        """End the audio."""
        yield from self.end()
        yield from self._due(self.processed + self.late)

    def _due(self, now: int) -> Iterable[Response]:
        while self.waiting and self.waiting[0][0] <= now:
            yield self._at(self.waiting.popleft()[1])

    def end(self) -> Iterable[Response]:
        """End the utterance, if there is one."""
        if not self.letters:
            return
        end = self.processed - self.silent
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
        self.waiting.append((self.processed + self.late, final))
        self.utterance += 1
        self.letters, self.silent = "", 0
        yield from self._due(self.processed)

    def _speech(self, type_: str, frame: int) -> Response:
        kind = speech_pb2.SpeechEvent.Type.Value(type_)
        return self._at(Response(speech_event=speech_pb2.SpeechEvent(type=kind, offset=duration(frame * FRAME_S))))

    def _at(self, response: Response) -> Response:
        response.audio_processed.CopyFrom(duration(self.processed * FRAME_S))
        return response


@dataclass
class Letters:
    """Answers `StreamTranscribe`."""

    break_at: Callable[[Any, int, int], Awaitable[None]] | None = None
    """Called before each event and each message with the context, the events sent and the bytes received; may abort."""
    late: int = 0
    configs: list[speech_pb2.StreamConfig] = field(default_factory=list)
    received: list[bytes] = field(default_factory=list)
    """Audio of each connection."""
    largest: int = 0
    """Bytes of the largest message."""
    got_audio: asyncio.Event = field(default_factory=asyncio.Event)
    """Set with the first audio."""
    half_closed: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, requests: Any, context: Any) -> AsyncIterator[Response]:
        sent, index = 0, len(self.received)
        self.received.append(b"")
        recognizer = LetterRecognizer(late=self.late)
        async for request in requests:
            if request.WhichOneof("payload") == "config":
                self.configs.append(request.config)
                recognizer.interims = request.config.interim_results
                if request.config.HasField("endpoint_silence"):
                    silence = request.config.endpoint_silence.ToTimedelta().total_seconds()
                    recognizer.endpoint_frames = round(silence / FRAME_S)
                continue
            self.received[index] += request.audio
            self.largest = max(self.largest, len(request.audio))
            await self._maybe_break(context, sent, len(self.received[index]))
            for response in recognizer.feed(request.audio) if request.audio else recognizer.end():
                await self._maybe_break(context, sent, len(self.received[index]))
                sent += 1
                yield response
                if response.HasField("final") and self.configs[-1].single_utterance:
                    return
            self.got_audio.set()
        self.half_closed.set()
        for response in recognizer.finish():
            await self._maybe_break(context, sent, len(self.received[index]))
            sent += 1
            yield response

    async def _maybe_break(self, context: Any, sent: int, received: int) -> None:
        if self.break_at is not None:
            await self.break_at(context, sent, received)


async def chunks(*parts: str | Flush, size: int = FRAME_BYTES) -> AsyncIterator[bytes | Flush]:
    """Speech in chunks of `size` bytes."""
    for part in parts:
        if isinstance(part, Flush):
            yield part
        else:
            audio = speech(part)
            for start in range(0, len(audio), size):
                yield audio[start : start + size]


async def endless(closed: asyncio.Event) -> AsyncIterator[bytes]:
    """Audio without end; sets `closed` when it is closed."""
    try:
        while True:
            yield speech("a")
            await asyncio.sleep(0)
    finally:
        closed.set()


def finals(events: list[StreamEvent]) -> list[str]:
    return [event.result.text for event in events if isinstance(event, Final)]
