"""Load on something that transcribes: so many callers, each with one request at a time, and what came of it."""

from __future__ import annotations

import asyncio
import io
import time
import wave
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from buildscripts.lib.load.corpus import Clip
from stt_server.audio import SAMPLE_RATE
from stt_server.engine.types import Samples


@dataclass(frozen=True, eq=False)
class Recording:
    """A clip, decoded and ready before the clock starts. It can be sent to another process."""

    name: str
    language: str
    text: str
    strict: bool
    pcm: bytes = field(repr=False)
    """Mono, signed 16-bit little-endian, at 16 kHz."""

    @classmethod
    def of(cls, clip: Clip) -> Recording:
        pcm = (np.clip(clip.samples, -1, 1) * 32767).astype("<i2").tobytes()
        return cls(clip.name, clip.language, clip.text, clip.strict, pcm)

    @property
    def seconds(self) -> float:
        return len(self.pcm) / 2 / SAMPLE_RATE

    @property
    def samples(self) -> Samples:
        """Of `pcm`: everybody hears the same."""
        samples: Samples = np.frombuffer(self.pcm, "<i2").astype(np.float32) / np.float32(32768)
        return samples

    @property
    def wav(self) -> bytes:
        """A WAV file."""
        out = io.BytesIO()
        with wave.open(out, "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(SAMPLE_RATE)
            file.writeframes(self.pcm)
        return out.getvalue()


Transcribe = Callable[[Recording], Awaitable[str]]
"""A recording's text. Called in an event loop, by several callers at a time; it doesn't block the loop."""


@dataclass(frozen=True)
class Measurement:
    """One contender under one load, once."""

    contender: str
    callers: int
    round: int
    """From 1."""
    audio: float
    """Seconds of audio in all requests."""
    wall: float
    """Seconds from the first request to the last answer."""
    latencies: tuple[float, ...]
    """Seconds, of each request."""
    texts: tuple[str, ...]
    """In the order of the recordings."""
    cpu: float | None = None
    """Processor seconds of this process, and of the server where there is one; None where they aren't known."""

    @property
    def throughput(self) -> float:
        """Seconds of audio a second."""
        return self.audio / self.wall


async def drive(
    contender: str,
    transcribe: Transcribe,
    recordings: Sequence[Recording],
    callers: int,
    round: int = 1,
    on_done: Callable[[], None] = lambda: None,
) -> Measurement:
    """Has `callers` callers transcribe the recordings, each taking the next one when it has an answer.

    Towards the end fewer callers are left than asked for, for every contender alike: take several recordings for each
    caller.
    """
    texts = [""] * len(recordings)
    latencies = [0.0] * len(recordings)
    pending = iter(list(enumerate(recordings)))

    async def caller() -> None:
        for index, recording in pending:
            began = time.perf_counter()
            texts[index] = await transcribe(recording)
            latencies[index] = time.perf_counter() - began
            on_done()

    processor, began = time.process_time(), time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(callers)))
    wall, cpu = time.perf_counter() - began, time.process_time() - processor
    audio = sum(recording.seconds for recording in recordings)
    return Measurement(contender, callers, round, audio, wall, tuple(latencies), tuple(texts), cpu)
