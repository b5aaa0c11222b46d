"""Closed-loop load generator: a fixed number of callers, each with one request at a time."""

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
    """A decoded clip. Picklable, so that it can be sent to another process."""

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
        """`pcm` as float32 samples, the same for every contender."""
        samples: Samples = np.frombuffer(self.pcm, "<i2").astype(np.float32) / np.float32(32768)
        return samples

    @property
    def wav(self) -> bytes:
        """The recording as a WAV file."""
        out = io.BytesIO()
        with wave.open(out, "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(SAMPLE_RATE)
            file.writeframes(self.pcm)
        return out.getvalue()


Transcribe = Callable[[Recording], Awaitable[str]]
"""Returns a recording's text. Several calls run at a time in one event loop, which it does not block."""


@dataclass(frozen=True)
class Measurement:
    """One run of one contender under one load."""

    contender: str
    callers: int
    round: int
    """From 1."""
    audio: float
    """Seconds of audio in all requests."""
    wall: float
    """Seconds from the first request to the last answer."""
    latencies: tuple[float, ...]
    """Of each request, in seconds."""
    texts: tuple[str, ...]
    """In the order of the recordings."""
    cpu: float | None = None
    """Processor seconds of this process and of the server if there is one; None if unknown."""

    @property
    def throughput(self) -> float:
        """Seconds of audio per second."""
        return self.audio / self.wall


async def drive(
    contender: str,
    transcribe: Transcribe,
    recordings: Sequence[Recording],
    callers: int,
    round: int = 1,
    on_done: Callable[[], None] = lambda: None,
) -> Measurement:
    """Transcribe the recordings with `callers` callers; each takes the next recording when it has an answer.

    Fewer callers are active near the end, for every contender alike: provide several recordings per caller.
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
