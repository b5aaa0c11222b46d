"""Mixes samples to mono, resamples them to 16 kHz and enforces the length limit, block by block."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import av
import numpy as np
import numpy.typing as npt

from stt_server.audio.formats import SAMPLE_RATE
from stt_server.audio.mixing import ChannelMixer
from stt_server.audio.mixing import FloatArray as FloatArray
from stt_server.errors import AudioTooLong

_BLOCK_SAMPLES = 1 << 15
"""Samples resampled at a time. Frames are often 20 ms, and each call of the resampler has a cost."""

_SLACK_SAMPLES = SAMPLE_RATE // 10
"""Allowed beyond the limit: lossy codecs fill up their last frame."""

_MAX_MAGNITUDE = 32768.0
"""Float samples are clipped to this magnitude, so that no later sum or square overflows."""


def most_samples(max_seconds: float) -> int:
    """Most samples at 16 kHz that a recording of `max_seconds` may have."""
    return math.ceil(max_seconds * SAMPLE_RATE) + _SLACK_SAMPLES


def too_long(max_seconds: float) -> AudioTooLong:
    """The error for a recording over the limit of `max_seconds`."""
    return AudioTooLong(f"the recording is longer than the limit of {max_seconds:g} seconds")


class MonoSink:
    """Converts blocks of samples at any rate to one mono recording at 16 kHz, block by block.

    Buffers about one second at any rate, so that the limit bounds memory, whatever a hostile file claims.
    """

    def __init__(self, max_seconds: float, give: Callable[[FloatArray], None]) -> None:
        """
        Args:
            give: called with each block, in order. Blocks are at most a few seconds long and not reused.
        """
        self.max_seconds = max_seconds
        self._max_samples = most_samples(max_seconds)
        self._give = give
        self.samples = 0
        """Samples given so far, at 16 kHz."""
        self._mixer = ChannelMixer()
        self._planar: list[npt.NDArray[np.floating[Any]]] = []
        """Blocks of the same number of channels that are not mixed yet: many frames at a time cost less."""
        self._pending: list[FloatArray] = []
        """Mixed blocks that are not resampled yet."""
        self._pending_samples = 0
        """Samples in both."""
        self._rate = SAMPLE_RATE
        self._resampler: av.AudioResampler | None = None

    def expect(self, frames: int, rate: int) -> None:
        """Raise AudioTooLong if `frames` more samples per channel, at `rate` hertz, would exceed the limit."""
        if frames * SAMPLE_RATE > (self._max_samples - self.samples) * rate:
            raise too_long(self.max_seconds)

    def add(self, samples: npt.NDArray[Any], rate: int) -> None:
        """Add `samples` of shape (channels, n), of any integer or float type, at `rate` hertz.

        The rate may change between calls. Raises AudioTooLong once the limit is exceeded.
        """
        if rate != self._rate:
            self.finish()
            self._rate = rate
        planar = to_float(samples)
        if self._planar and len(planar) != len(self._planar[0]):
            self._mix_planar()
        self._planar.append(planar)
        self._pending_samples += planar.shape[1]
        if self._pending_samples >= _BLOCK_SAMPLES:
            self._resample_pending()

    def finish(self) -> None:
        """Give the pending samples, including those inside the resampler."""
        self._resample_pending()
        if self._resampler is not None:
            for frame in self._resampler.resample(None):
                self._keep(frame.to_ndarray()[0])
            self._resampler = None

    def _mix_planar(self) -> None:
        if self._planar:
            planar = self._planar[0] if len(self._planar) == 1 else np.concatenate(self._planar, axis=1)
            self._planar.clear()
            self._pending.append(self._mixer.mix(planar, self._rate))

    def _resample_pending(self) -> None:
        self._mix_planar()
        if not self._pending:
            return
        block = np.concatenate(self._pending)
        self._pending.clear()
        self._pending_samples = 0
        if self._rate == SAMPLE_RATE:
            self._keep(block)
            return
        if self._resampler is None:
            self._resampler = av.AudioResampler(format="fltp", layout="mono", rate=SAMPLE_RATE)
        frame = av.AudioFrame.from_ndarray(block[np.newaxis], format="fltp", layout="mono")
        frame.sample_rate = self._rate
        for resampled in self._resampler.resample(frame):
            self._keep(resampled.to_ndarray()[0])

    def _keep(self, block: FloatArray) -> None:
        self.samples += len(block)
        if self.samples > self._max_samples:
            raise too_long(self.max_seconds)
        self._give(np.ascontiguousarray(block, dtype=np.float32))


class SampleBuffer:
    """Joins blocks of samples into one recording."""

    def __init__(self) -> None:
        # A bytearray grows in place; joining a list of arrays would need twice the memory.
        self._bytes = bytearray()

    def add(self, block: FloatArray) -> None:
        """Append a block of a `MonoSink`."""
        self._bytes += block.data.cast("B") if len(block) else b""

    def add_bytes(self, block: bytes | bytearray) -> None:
        """Append a block received from a child process."""
        self._bytes += block

    def samples(self) -> FloatArray:
        """All samples as mono float32 at 16 kHz; may be empty."""
        return np.frombuffer(self._bytes, dtype=np.float32)


def to_float(samples: npt.NDArray[Any]) -> npt.NDArray[np.floating[Any]]:
    """Convert samples of any type to floats with full scale at 1; NaN and infinities become 0."""
    if samples.dtype == np.uint8:
        return (samples.astype(np.float32) - 128.0) / 128.0
    if np.issubdtype(samples.dtype, np.integer):
        return samples.astype(np.float32) / float(-np.iinfo(samples.dtype).min)
    finite: npt.NDArray[np.floating[Any]] = np.nan_to_num(samples, nan=0.0, posinf=0.0, neginf=0.0)
    return finite.clip(-_MAX_MAGNITUDE, _MAX_MAGNITUDE)
