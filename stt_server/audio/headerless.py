"""Decodes headerless audio: signed 16-bit PCM, G.711 mu-law and A-law."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from stt_server.audio.channels import Sink
from stt_server.audio.formats import AudioFormat
from stt_server.audio.mono import too_long
from stt_server.errors import EmptyAudio, InvalidArgument

_BLOCK_SAMPLES = 1 << 17
"""Samples of each channel converted at a time, which bounds the copies."""


def _mulaw_table() -> npt.NDArray[np.int16]:
    """The 256 values of ITU-T G.711 mu-law, scaled to 16 bits as usual: -32124 to 32124."""
    code = ~np.arange(256, dtype=np.int32) & 0xFF
    magnitude = (((code & 0x0F) << 3) + 0x84 << (code >> 4 & 7)) - 0x84
    return np.where(code & 0x80, -magnitude, magnitude).astype(np.int16)


def _alaw_table() -> npt.NDArray[np.int16]:
    """The 256 values of ITU-T G.711 A-law, scaled to 16 bits as usual: -32256 to 32256."""
    code = np.arange(256, dtype=np.int32) ^ 0x55
    exponent, mantissa = code >> 4 & 7, code & 0x0F
    magnitude = np.where(exponent, ((mantissa << 4) + 0x108) << np.maximum(exponent, 1) - 1, (mantissa << 4) + 8)
    return np.where(code & 0x80, magnitude, -magnitude).astype(np.int16)


MULAW_TO_LINEAR = _mulaw_table()
"""Linear 16-bit value of each mu-law byte."""

COMPANDED_TO_LINEAR: Mapping[str, npt.NDArray[np.int16]] = {"mulaw": MULAW_TO_LINEAR, "alaw": _alaw_table()}
"""Linear 16-bit value of each byte, by encoding. Encodings of one byte per sample are exactly these."""


def decode_headerless(data: bytes, format: AudioFormat, sink: Sink, *, max_seconds: float) -> None:
    """Convert all of `data` and add it to `sink`.

    Raises:
        InvalidArgument: the format is out of range, or `data` doesn't hold whole samples.
        EmptyAudio: no bytes.
        AudioTooLong: over `max_seconds`.
    """
    format.validate()
    if not data:
        raise EmptyAudio("the recording is empty (0 bytes)")
    table = COMPANDED_TO_LINEAR.get(format.encoding)
    sample_bytes = 2 if table is None else 1
    if len(data) % (sample_bytes * format.channels):
        raise InvalidArgument(
            f"{format.encoding} audio of {format.channels} channels must be a multiple of "
            f"{sample_bytes * format.channels} bytes (bytes per sample * channels); got {len(data)} bytes"
        )
    codes: npt.NDArray[Any] = np.frombuffer(data, dtype="<i2" if sample_bytes == 2 else np.uint8)
    interleaved = codes.reshape(-1, format.channels)
    if len(interleaved) > max_seconds * format.sample_rate:
        raise too_long(max_seconds)
    for first in range(0, len(interleaved), _BLOCK_SAMPLES):
        block = interleaved[first : first + _BLOCK_SAMPLES].T
        sink.add(block if table is None else table[block], format.sample_rate)
