"""Reads WAV files and headerless audio in blocks, as 16-bit samples. Needs no decoder."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

Int16 = npt.NDArray[np.int16]

BLOCK_FRAMES = 1 << 15
"""Frames read at a time."""

_PCM, _FLOAT, _ALAW, _MULAW, _EXTENSIBLE = 1, 3, 6, 7, 0xFFFE
_UNKNOWN_SIZE = 0xFFFFFFFF
_MAX_CHUNKS = 1000
_MAX_CHANNELS = 8
_RATES_HZ = (4000, 192_000)


@dataclass(frozen=True)
class PcmLayout:
    """Where the samples of a file are, and what they mean."""

    sample_rate: int
    """Hertz."""
    channels: int
    encoding: str
    """Key of `_DECODERS`."""
    first: int = 0
    """Offset of the first sample, in bytes."""
    size: int | None = None
    """Bytes of samples; None: to the end of the file."""

    @property
    def frame_bytes(self) -> int:
        return _DECODERS[self.encoding][0] * self.channels


def find_wav(file: BinaryIO) -> PcmLayout | None:
    """Locate the samples of a plain WAV file; None if it is another kind of file, or its codec isn't supported here.

    A data chunk whose size is 0 or unknown, as written to a pipe, extends to the end of the file.
    """
    head = file.read(12)
    if head[:4] not in (b"RIFF", b"RF64", b"BW64") or head[8:] != b"WAVE":
        return None
    form: tuple[str, int, int] | None = None
    long_size = 0
    for _ in range(_MAX_CHUNKS):
        header = file.read(8)
        if len(header) < 8:
            return None
        kind, size = struct.unpack("<4sI", header)
        if kind == b"data":
            size = long_size if size == _UNKNOWN_SIZE else size
            return form and PcmLayout(form[1], form[2], form[0], file.tell(), size or None)
        body = file.read(min(size, 64)) if kind in (b"fmt ", b"ds64") else b""
        if kind == b"fmt " and form is None and (form := _format(body)) is None:
            return None
        if kind == b"ds64" and len(body) >= 16 and head[:4] != b"RIFF":
            long_size = int.from_bytes(body[8:16], "little")
        file.seek(size + size % 2 - len(body), os.SEEK_CUR)
    return None


def seconds_of(layout: PcmLayout, file: BinaryIO) -> float:
    """Duration of the samples that the file really has."""
    left = max(0, file.seek(0, os.SEEK_END) - layout.first)
    size = left if layout.size is None else min(left, layout.size)
    return size // layout.frame_bytes / layout.sample_rate


def blocks_of(file: BinaryIO, layout: PcmLayout) -> Iterator[Int16]:
    """Yield the samples in blocks of shape (frames, channels). An incomplete last frame is dropped. Raises OSError."""
    decode = _DECODERS[layout.encoding][1]
    left = layout.size
    file.seek(layout.first)
    step = BLOCK_FRAMES * layout.frame_bytes
    while data := file.read(step if left is None else min(step, left)):
        left = None if left is None else left - len(data)
        whole = len(data) - len(data) % layout.frame_bytes
        if whole:
            yield decode(data[:whole]).reshape(-1, layout.channels)


def _format(fmt: bytes) -> tuple[str, int, int] | None:
    """Encoding, sample rate and channels of a `fmt ` chunk; None if not supported here."""
    if len(fmt) < 16:
        return None
    tag, channels, rate, _, frame_bytes, bits = struct.unpack_from("<HHIIHH", fmt)
    if tag == _EXTENSIBLE and len(fmt) >= 26:
        (tag,) = struct.unpack_from("<H", fmt, 24)
    width = (bits + 7) // 8
    encoding = {
        _PCM: {1: "u8", 2: "linear16", 3: "s24", 4: "s32"},
        _FLOAT: {4: "f32", 8: "f64"},
        _ALAW: {1: "alaw"},
        _MULAW: {1: "mulaw"},
    }.get(tag, {})
    valid = 1 <= channels <= _MAX_CHANNELS and _RATES_HZ[0] <= rate <= _RATES_HZ[1]
    if width not in encoding or frame_bytes != width * channels or not valid:
        return None
    return encoding[width], rate, channels


def _from_float(values: npt.NDArray[Any]) -> Int16:
    unit = np.clip(np.nan_to_num(values.astype(np.float32), nan=0.0), -1.0, 1.0)
    return np.minimum(np.rint(unit * 32768), 32767).astype(np.int16)


def _from_s24(data: bytes) -> Int16:
    upper = np.frombuffer(data, np.uint8).reshape(-1, 3)[:, 1:]
    return np.ascontiguousarray(upper).view("<i2")[:, 0].astype(np.int16)


def _mulaw_table() -> Int16:
    """Values of G.711 mu-law codes (ITU-T G.711, table 2)."""
    code = ~np.arange(256, dtype=np.int32) & 0xFF
    magnitude = (((code & 0x0F) << 3) + 0x84 << (code >> 4 & 7)) - 0x84
    return np.where(code & 0x80, -magnitude, magnitude).astype(np.int16)


def _alaw_table() -> Int16:
    """Values of G.711 A-law codes (ITU-T G.711, table 1)."""
    code = np.arange(256, dtype=np.int32) ^ 0x55
    exponent, mantissa = code >> 4 & 7, (code & 0x0F) << 4
    magnitude = np.where(exponent > 0, mantissa + 0x108 << np.maximum(exponent - 1, 0), mantissa + 8)
    return np.where(code & 0x80, magnitude, -magnitude).astype(np.int16)


def _from_bytes(table: Callable[[], Int16]) -> Callable[[bytes], Int16]:
    return lambda data: table()[np.frombuffer(data, np.uint8)]


_DECODERS: dict[str, tuple[int, Callable[[bytes], Int16]]] = {
    "u8": (1, lambda data: ((np.frombuffer(data, np.uint8).astype(np.int16) - 128) << 8).astype(np.int16)),
    "linear16": (2, lambda data: np.frombuffer(data, "<i2").astype(np.int16)),
    "s24": (3, _from_s24),
    "s32": (4, lambda data: (np.frombuffer(data, "<i4") >> 16).astype(np.int16)),
    "f32": (4, lambda data: _from_float(np.frombuffer(data, "<f4"))),
    "f64": (8, lambda data: _from_float(np.frombuffer(data, "<f8"))),
    "mulaw": (1, _from_bytes(_mulaw_table)),
    "alaw": (1, _from_bytes(_alaw_table)),
}
"""Bytes of a sample, and its conversion to 16 bits, by encoding."""
