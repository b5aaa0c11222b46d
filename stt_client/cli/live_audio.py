"""Where `stt stream` takes its audio from: a file, standard input, or a microphone."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
import wave
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import BinaryIO

from stt_client.cli.connection import UsageError
from stt_client.request import AudioFormat
from stt_client.streaming.audio_source import frame_bytes

RATES_HZ = (8000, 48_000)
"""Of live audio, as services take it."""
CHUNK_S = 0.1
DECODED = AudioFormat("linear16", 16_000)
_PIECE_BYTES = 64 * 1024


@dataclass(frozen=True)
class LiveAudio:
    format: AudioFormat
    chunks: AsyncGenerator[bytes, None]


@dataclass(frozen=True)
class Clock:
    """What paces a recording; tests bring their own."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


def of_file(path: Path, raw: AudioFormat | None) -> LiveAudio:
    """A recording in chunks of 0.1 s.

    Args:
        raw: its format, where it is headerless.

    Raises:
        UsageError: it needs a decoder that isn't here, or it is nothing that a stream takes.
        OSError: it can't be read.
    """
    if raw is not None:
        return LiveAudio(_checked(raw, path.name), _threaded(_pieces(path.open("rb"), raw)))
    try:
        file = wave.open(str(path), "rb")  # noqa: SIM115 - closed by its reader
    except (wave.Error, EOFError):
        return LiveAudio(DECODED, _threaded(_decoded(path)))
    if file.getsampwidth() != 2 or not RATES_HZ[0] <= file.getframerate() <= RATES_HZ[1]:
        file.close()
        return LiveAudio(DECODED, _threaded(_decoded(path)))
    return LiveAudio(AudioFormat("linear16", file.getframerate(), file.getnchannels()), _threaded(_frames(file)))


def of_standard_input(raw: AudioFormat) -> LiveAudio:
    """What is piped in, as it comes.

    Raises:
        UsageError: standard input is a terminal.
    """
    if sys.stdin.isatty():
        raise UsageError("- reads audio from standard input, but that is a terminal; pipe it in")
    return LiveAudio(_checked(raw, "standard input"), _read_as_it_comes(sys.stdin.fileno()))


async def paced(audio: LiveAudio, clock: Clock) -> AsyncGenerator[bytes, None]:
    """The chunks when a microphone would have them: each once it is over."""
    rate = audio.format.sample_rate * frame_bytes(audio.format)
    began, passed = clock.now(), 0.0
    async for chunk in audio.chunks:
        passed += len(chunk) / rate
        if (ahead := began + passed - clock.now()) > 0:
            await clock.sleep(ahead)
        yield chunk


def _checked(raw: AudioFormat, name: str) -> AudioFormat:
    low, high = RATES_HZ
    if not low <= raw.sample_rate <= high:
        raise UsageError(f"{name}: a stream takes {low} to {high} Hz, not {raw.sample_rate}")
    return raw


def _pieces(file: BinaryIO, raw: AudioFormat) -> Iterator[bytes]:
    size = round(CHUNK_S * raw.sample_rate) * frame_bytes(raw)
    with file:
        yield from iter(lambda: file.read(size), b"")


def _frames(file: wave.Wave_read) -> Iterator[bytes]:
    frames = round(CHUNK_S * file.getframerate())
    with file:
        yield from iter(lambda: file.readframes(frames), b"")


def _decoded(path: Path) -> Iterator[bytes]:
    """Any recording, by PyAV where it is installed, as with the services. Raises UsageError, at once."""
    try:
        import av
    except ImportError:
        raise UsageError(
            f"{path}: only WAV of 16 bits at {RATES_HZ[0]} to {RATES_HZ[1]} Hz is streamed as it is. Install PyAV "
            f"(pip install av), or decode it: ffmpeg -v error -i {path} -f s16le -ac 1 -ar 16000 - | "
            "stt stream - --rate 16000"
        ) from None
    try:
        container = av.open(str(path))
        stream = container.streams.audio[0]
    except (av.error.FFmpegError, IndexError) as error:
        raise UsageError(f"{path}: no audio that can be decoded ({error})") from None

    def chunks() -> Iterator[bytes]:
        resampler = av.AudioResampler("s16", "mono", DECODED.sample_rate)
        with container:
            try:
                for frame in chain(container.decode(stream), (None,)):
                    for part in resampler.resample(frame):
                        yield part.to_ndarray().tobytes()
            except av.error.FFmpegError as error:
                raise OSError(f"it can't be decoded any further ({error})") from None

    return chunks()


async def _threaded(pieces: Iterator[bytes]) -> AsyncGenerator[bytes, None]:
    """What is read off the event loop."""
    while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
        yield piece


async def _read_as_it_comes(descriptor: int) -> AsyncGenerator[bytes, None]:
    """Reads in a thread that nobody waits for at the end: it may be blocked for good."""
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[bytes] = asyncio.Queue(4)

    def read() -> None:
        while True:
            # Not by `sys.stdin`, whose lock a blocked thread would hold while Python shuts down.
            piece = os.read(descriptor, _PIECE_BYTES)
            try:
                asyncio.run_coroutine_threadsafe(queue.put(piece), loop).result()
            except RuntimeError:
                return  # the loop is closed
            if not piece:
                return

    threading.Thread(target=read, name="stt-stdin", daemon=True).start()
    while piece := await queue.get():
        yield piece
