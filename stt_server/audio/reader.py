"""Decode and split recordings off the event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from functools import partial
from typing import Protocol

from stt_server.audio.chunks import Chunk, split
from stt_server.audio.decode import decode_plain
from stt_server.audio.formats import AudioFormat
from stt_server.audio.mono import FloatArray
from stt_server.audio.vad import detect_speech

SPARSE_SHARE = 0.5
"""Chunks of less than this share of a recording are copied out of it, so that the rest is freed."""


class DecodeFile(Protocol):
    """Decodes a container file in a sandbox."""

    def __call__(self, data: bytes, *, separate_channels: bool = False) -> Awaitable[list[FloatArray]]: ...


class AudioReader:
    """Decodes uploads and splits them into chunks, in threads and in the decoder's child processes."""

    def __init__(
        self,
        threads: Executor,
        decode_file: DecodeFile,
        *,
        max_seconds: float,
        vad_filter: bool,
    ) -> None:
        """
        Args:
            threads: run voice activity detection and the decoding of plain audio.
            decode_file: decodes a container file in a sandbox.
            max_seconds: longest recording that is accepted.
            vad_filter: whether to leave out what is no speech.
        """
        self._threads = threads
        self._decode_file = decode_file
        self.max_seconds = max_seconds
        self._vad_filter = vad_filter

    async def decode(self, data: bytes, format: AudioFormat, *, separate_channels: bool = False) -> list[FloatArray]:
        """Decode a recording to samples at 16 kHz: of all channels mixed, or of each by itself.

        Raises:
            EmptyAudio, UnsupportedAudio, AudioTooLong, InvalidArgument: the recording can't be used.
        """
        loop = asyncio.get_running_loop()
        separate = {"separate_channels": separate_channels}
        plain = partial(decode_plain, data, format, max_seconds=self.max_seconds, **separate)
        audio = await loop.run_in_executor(self._threads, plain)
        return audio if audio is not None else await self._decode_file(data, **separate)

    async def split(self, channels: Sequence[FloatArray], *, separate_channels: bool = False) -> list[Chunk]:
        """Detect speech and cut each channel of a recording into chunks; cancelling stops the work in its thread too.

        Args:
            separate_channels: number the channels, from 1, in their chunks.
        """
        found = []
        for number, audio in enumerate(channels, 1):
            chunks = await self._split(audio)
            found += [replace(chunk, channel=number) for chunk in chunks] if separate_channels else chunks
        if is_sparse(found, sum(map(len, channels))):
            return await asyncio.get_running_loop().run_in_executor(self._threads, _copied, found)
        return found

    async def _split(self, audio: FloatArray) -> list[Chunk]:
        cancelled = threading.Event()
        detect = partial(detect_speech, wanted=lambda: not cancelled.is_set())
        work = partial(split, audio, vad_filter=self._vad_filter, detect=detect)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        finally:
            cancelled.set()


def is_sparse(chunks: Sequence[Chunk], samples: int) -> bool:
    """Whether chunks hold little of a recording of so many samples, all channels together."""
    return sum(len(chunk.samples) for chunk in chunks) < SPARSE_SHARE * samples


def _copied(chunks: Sequence[Chunk]) -> list[Chunk]:
    return [replace(chunk, samples=chunk.samples.copy()) for chunk in chunks]
