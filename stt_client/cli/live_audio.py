"""Audio of `stt stream` from a file or standard input."""

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

from stt_client.cli.errors import UsageError
from stt_client.request import AudioFormat
from stt_client.streaming.audio_source import frame_bytes

RATES_HZ = (8000, 48_000)
"""Sample rates that services accept for live audio, in Hz: lowest and highest."""
CHUNK_S = 0.1
"""Seconds of audio per chunk."""
DECODED = AudioFormat("linear16", 16_000)
"""Format of recordings that are decoded here."""
_PIECE_BYTES = 64 * 1024


@dataclass(frozen=True)
class LiveAudio:
    """Audio to stream, and its format."""

    format: AudioFormat
    chunks: AsyncGenerator[bytes, None]


@dataclass(frozen=True)
class Clock:
    """Time source that paces a recording."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


def of_file(path: Path, raw: AudioFormat | None) -> LiveAudio:
    """Read a recording in chunks of 0.1 s.

    Args:
        raw: format of a headerless recording; None: it has a header.

    Raises:
        UsageError: the sample rate is unsupported, the file isn't audio, or a decoder is required but not installed.
        OSError: the file can't be read.
    """
    if raw is not None:
        return LiveAudio(_checked(raw, path.name), _in_thread(_pieces(path.open("rb"), raw)))
    try:
        file = wave.open(str(path), "rb")  # noqa: SIM115 - closed by _frames
    except (wave.Error, EOFError):
        return LiveAudio(DECODED, _in_thread(_decoded(path)))
    if file.getsampwidth() != 2 or not RATES_HZ[0] <= file.getframerate() <= RATES_HZ[1]:
        file.close()
        return LiveAudio(DECODED, _in_thread(_decoded(path)))
    return LiveAudio(AudioFormat("linear16", file.getframerate(), file.getnchannels()), _in_thread(_frames(file)))


def of_standard_input(raw: AudioFormat) -> LiveAudio:
    """Read a pipe, in chunks as they arrive.

    Raises:
        UsageError: standard input is a terminal.
    """
    if sys.stdin.isatty():
        raise UsageError("standard input is a terminal; pipe audio into it, or give a FILE")
    return LiveAudio(_checked(raw, "standard input"), _read_pipe(sys.stdin.fileno()))


async def paced(audio: LiveAudio, clock: Clock) -> AsyncGenerator[bytes, None]:
    """Yield the chunks in real time: each when a microphone would have finished recording it."""
    rate = audio.format.sample_rate * frame_bytes(audio.format)
    began, passed = clock.now(), 0.0
    async for chunk in audio.chunks:
        passed += len(chunk) / rate
        if (early := began + passed - clock.now()) > 0:
            await clock.sleep(early)
        yield chunk


def _checked(raw: AudioFormat, name: str) -> AudioFormat:
    low, high = RATES_HZ
    if not low <= raw.sample_rate <= high:
        raise UsageError(f"{name}: unsupported sample rate {raw.sample_rate} Hz; use {low} to {high} Hz")
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
    """Decode any recording with PyAV, if it is installed. Raises UsageError immediately."""
    try:
        import av
    except ImportError:
        raise UsageError(
            f"{path}: not a 16-bit WAV file at {RATES_HZ[0]} to {RATES_HZ[1]} Hz, so it must be decoded. Install PyAV "
            f"(pip install av), or use ffmpeg: ffmpeg -v error -i {path} -f s16le -ac 1 -ar 16000 - | "
            "stt stream - --rate 16000"
        ) from None
    try:
        container = av.open(str(path))
        stream = container.streams.audio[0]
    except (av.error.FFmpegError, IndexError) as error:
        raise UsageError(f"{path}: can't decode audio ({error})") from None

    def chunks() -> Iterator[bytes]:
        resampler = av.AudioResampler("s16", "mono", DECODED.sample_rate)
        with container:
            try:
                for frame in chain(container.decode(stream), (None,)):
                    for part in resampler.resample(frame):
                        yield part.to_ndarray().tobytes()
            except av.error.FFmpegError as error:
                raise OSError(f"decoding failed ({error})") from None

    return chunks()


async def _in_thread(pieces: Iterator[bytes]) -> AsyncGenerator[bytes, None]:
    """Iterate in a thread."""
    while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
        yield piece


async def _read_pipe(descriptor: int) -> AsyncGenerator[bytes, None]:
    """Read in a daemon thread, which may be blocked when the program ends."""
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[bytes] = asyncio.Queue(4)

    def read() -> None:
        while True:
            # Not `sys.stdin`: a blocked thread would hold its lock while Python shuts down.
            piece = os.read(descriptor, _PIECE_BYTES)
            try:
                asyncio.run_coroutine_threadsafe(queue.put(piece), loop).result()
            except RuntimeError:
                return  # The loop is closed.
            if not piece:
                return

    threading.Thread(target=read, name="stt-stdin", daemon=True).start()
    while piece := await queue.get():
        yield piece
