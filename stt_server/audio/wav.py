"""Plain WAV files, read without FFmpeg: integer and float PCM.

All sizes in the file are claims. Chunks are walked by them within the bytes that are there, and whatever is odd is left
to FFmpeg, in its child.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from stt_server.audio.formats import check_stated
from stt_server.audio.mono import MonoSink
from stt_server.errors import EmptyAudio

_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
"""Format tags, as RIFF registers them."""

_SUBFORMAT_TAIL = bytes.fromhex("000000001000800000aa00389b71")
"""Of the GUIDs that stand for the format tags: the tag, then these 14 bytes."""

_WIDTHS = {_PCM: (1, 2, 3, 4), _FLOAT: (4, 8)}
"""Bytes of one sample."""

_UNKNOWN_SIZE = 0xFFFFFFFF
_MOST_CHUNKS = 1000
"""Before the samples. Honest files have a handful; 16 MiB of empty ones would take a second to walk."""

_BLOCK_FRAMES = 1 << 17
"""Converted at a time, to bound the copies."""


@dataclass(frozen=True)
class PlainWav:
    """A WAV file of PCM, its samples found but not yet converted."""

    rate: int
    """Hertz, 4000 to 192000."""
    channels: int
    """1 to 8."""
    kind: Literal["int", "float"]
    width: int
    """Bytes of one sample of one channel."""
    samples: memoryview
    """A whole number of frames, little-endian, channels interleaved."""

    @property
    def frames(self) -> int:
        return len(self.samples) // (self.width * self.channels)

    def feed(self, sink: MonoSink) -> None:
        """Gives all samples to `sink`.

        Raises:
            EmptyAudio: there are none.
            AudioTooLong: more than the sink takes; nothing is converted then.
        """
        if not self.frames:
            raise EmptyAudio("the file holds no audio samples")
        sink.expect(self.frames, self.rate)
        step = _BLOCK_FRAMES * self.width * self.channels
        for first in range(0, len(self.samples), step):
            sink.add(self._planar(self.samples[first : first + step]), self.rate)

    def _planar(self, block: memoryview) -> npt.NDArray[Any]:
        """`block` shaped (channels, n), in a type whose full scale is known."""
        if self.width == 3:
            padded = np.zeros((len(block) // 3, 4), dtype=np.uint8)
            padded[:, 1:] = np.frombuffer(block, dtype=np.uint8).reshape(-1, 3)
            values: npt.NDArray[Any] = padded.view("<i4")[:, 0]
        else:
            letter = "f" if self.kind == "float" else "u" if self.width == 1 else "i"
            values = np.frombuffer(block, dtype=f"<{letter}{self.width}")
        planar: npt.NDArray[Any] = values.reshape(-1, self.channels).T
        return planar


def read_wav(data: bytes) -> PlainWav | None:
    """The samples of a plain WAV file; None for one that only FFmpeg may make sense of.

    A data chunk of no or unknown size, as written to a pipe, ends where the bytes end, and so does one cut short.

    Raises:
        InvalidArgument: sample rate or channels out of range, in any WAV file.
    """
    form: tuple[int, int, int, int, int] | None = None
    long_size = 0
    for kind, first, size in _chunks(data):
        if kind == b"ds64" and data[:4] != b"RIFF":
            long_size = int.from_bytes(data[first + 8 : first + 16], "little")
        elif kind == b"fmt " and form is None:
            form = _form(data[first : first + min(size, 40)])
            if form is None:
                return None
        elif kind == b"data":
            if size == _UNKNOWN_SIZE:
                size = long_size
            return _plain(form, memoryview(data)[first : first + size if size else None])
    return None


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Kind, first byte and claimed size of each chunk that begins within the bytes."""
    at = 12
    for _ in range(_MOST_CHUNKS):
        if at + 8 > len(data):
            return
        kind, size = struct.unpack_from("<4sI", data, at)
        yield kind, at + 8, size
        at += 8 + size + size % 2


def _form(fmt: bytes) -> tuple[int, int, int, int, int] | None:
    """Tag, channels, rate, bytes of a frame, and bits of a sample; None if there are too few bytes for that."""
    if len(fmt) < 16:
        return None
    tag, channels, rate, _, frame_bytes, bits = struct.unpack_from("<HHIIHH", fmt)
    check_stated(rate, channels)
    if tag == _EXTENSIBLE and len(fmt) >= 40 and fmt[26:40] == _SUBFORMAT_TAIL:
        tag = struct.unpack_from("<H", fmt, 24)[0]
    return tag, channels, rate, frame_bytes, bits


def _plain(form: tuple[int, int, int, int, int] | None, samples: memoryview) -> PlainWav | None:
    if form is None:
        return None
    tag, channels, rate, frame_bytes, bits = form
    width = (bits + 7) // 8
    if width not in _WIDTHS.get(tag, ()) or frame_bytes != width * channels:
        return None
    whole = len(samples) - len(samples) % frame_bytes
    return PlainWav(rate, channels, "float" if tag == _FLOAT else "int", width, samples[:whole])
