"""Headerless audio -> mono float32 at 16 kHz, incrementally."""

from __future__ import annotations

from typing import Any

import av
import numpy as np
import numpy.typing as npt

from stt_server.audio.formats import SAMPLE_RATE, AudioFormat
from stt_server.audio.headerless import COMPANDED_TO_LINEAR
from stt_server.audio.mixing import ChannelMixer, FloatArray

_BLOCKS_PER_SECOND = 50
"""The resampler only gets whole blocks of 20 ms, so that its output is independent of message boundaries."""

_FULL_SCALE = 32768.0


class StreamResampler:
    """Decodes one stream. The same bytes give the same samples, wherever message boundaries are."""

    def __init__(self, format: AudioFormat) -> None:
        """
        Args:
            format: headerless and validated.
        """
        self._linear = COMPANDED_TO_LINEAR.get(format.encoding)
        """Table of the linear value of each byte; None if the audio is linear itself."""
        self._channels = format.channels
        self._frame_bytes = format.channels * (2 if self._linear is None else 1)
        self._rate = format.sample_rate
        self._mixer = ChannelMixer()
        self._bytes = bytearray()
        """The last, incomplete block."""
        self._resampler: av.AudioResampler | None = None
        if self._rate != SAMPLE_RATE:
            self._resampler = av.AudioResampler(format="fltp", layout="mono", rate=SAMPLE_RATE)

    @property
    def bytes_per_second(self) -> int:
        return self._frame_bytes * self._rate

    def add(self, data: bytes) -> FloatArray:
        """Decode all complete blocks."""
        self._bytes += data
        block = self._rate // _BLOCKS_PER_SECOND * self._frame_bytes
        whole = len(self._bytes) // block * block
        blocks = [self._resampled(self._mono(bytes(self._bytes[at : at + block]))) for at in range(0, whole, block)]
        del self._bytes[:whole]
        return _joined(blocks)

    def finish(self) -> FloatArray:
        """Decode the last samples; an incomplete one at the end is dropped."""
        whole = len(self._bytes) // self._frame_bytes * self._frame_bytes
        rest = self._mono(bytes(self._bytes[:whole]))
        self._bytes.clear()
        blocks = [self._resampled(rest)] if len(rest) else []
        if self._resampler is not None:
            blocks += [frame.to_ndarray()[0] for frame in self._resampler.resample(None)]
            self._resampler = None
        return _joined(blocks)

    def _mono(self, data: bytes) -> FloatArray:
        codes: npt.NDArray[Any] = np.frombuffer(data, dtype="<i2" if self._linear is None else np.uint8)
        linear = codes if self._linear is None else self._linear[codes]
        planar = linear.reshape(-1, self._channels).T.astype(np.float32) / np.float32(_FULL_SCALE)
        return self._mixer.mix(planar, self._rate)

    def _resampled(self, mono: FloatArray) -> FloatArray:
        """Resample a block; the filter's state carries over, so that block boundaries are inaudible."""
        if self._resampler is None:
            return mono
        frame = av.AudioFrame.from_ndarray(mono[np.newaxis], format="fltp", layout="mono")
        frame.sample_rate = self._rate
        return _joined([resampled.to_ndarray()[0] for resampled in self._resampler.resample(frame)])


def _joined(blocks: list[FloatArray]) -> FloatArray:
    return np.concatenate(blocks) if blocks else np.zeros(0, dtype=np.float32)
