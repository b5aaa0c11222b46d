"""Audio of `stt stream` from a file or standard input."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from stt_client.cli.errors import UsageError
from stt_client.request import AudioFormat
from stt_client.streaming.audio_source import frame_bytes

if TYPE_CHECKING:
    from stt_client.recordings.wav import Int16

RATES_HZ = (8000, 48_000)
"""Sample rates that services accept for live audio, in Hz: lowest and highest."""
CHUNK_S = 0.1
"""Seconds of audio per chunk."""
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
    # Imported here: it takes numpy, which the rest of the command does without.
    from stt_client.recordings.decoding import INSTALL, NotDecodable
    from stt_client.recordings.reading import DecoderMissing, Source

    if raw is not None:
        return LiveAudio(_checked(raw, path.name), _in_thread(_pieces(path.open("rb"), raw)))
    try:
        reading = Source(path).read(RATES_HZ)
    except DecoderMissing:
        raise UsageError(
            f"{path}: not a plain WAV file at {RATES_HZ[0]} to {RATES_HZ[1]} Hz, so it must be decoded. Install PyAV "
            f"({INSTALL}), or use ffmpeg: ffmpeg -v error -i {path} -f s16le -ac 1 -ar 16000 - | "
            "stt stream - --rate 16000"
        ) from None
    except NotDecodable as error:
        raise UsageError(f"{path}: can't decode audio ({error})") from None
    format_ = AudioFormat("linear16", reading.sample_rate, reading.channels)
    return LiveAudio(format_, _in_thread(_chunks(reading.blocks, format_)))


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


def _chunks(blocks: Iterator[Int16], format_: AudioFormat) -> Iterator[bytes]:
    """Cut blocks of samples into chunks of `CHUNK_S`."""
    size = round(CHUNK_S * format_.sample_rate) * frame_bytes(format_)
    rest = b""
    for block in blocks:
        rest += block.astype("<i2").tobytes()
        whole = len(rest) - len(rest) % size
        yield from (rest[start : start + size] for start in range(0, whole, size))
        rest = rest[whole:]
    if rest:
        yield rest


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
