"""The one way in for samples: mixed to mono, resampled to 16 kHz, counted against the limit as they come."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import av
import numpy as np
import numpy.typing as npt

from stt_server.audio.formats import SAMPLE_RATE
from stt_server.errors import AudioTooLong

FloatArray = npt.NDArray[np.float32]

_BLOCK_SAMPLES = 1 << 15
"""Resampled at a time: frames are often 20 ms, and each turn through the resampler has its price."""

_SLACK_SAMPLES = SAMPLE_RATE // 10
"""A recording of exactly the limit comes out a little longer: lossy codecs fill up their last frame."""

_LOUDEST = 32768.0
"""Finite but monstrous float samples are cut here, so that no later sum or square overflows."""


def most_samples(max_seconds: float) -> int:
    """Samples at 16 kHz that a recording of at most `max_seconds` may come out as."""
    return math.ceil(max_seconds * SAMPLE_RATE) + _SLACK_SAMPLES


def too_long(max_seconds: float) -> AudioTooLong:
    """The error for a recording over the limit of `max_seconds`."""
    return AudioTooLong(f"the recording is longer than the limit of {max_seconds:g} seconds")


class MonoSink:
    """Takes blocks of samples at any rate, hands on one mono recording at 16 kHz, block by block.

    Holds about one second, whatever the input's rate: the memory of a hostile recording is bounded by the limit, not by
    what it claims to hold.
    """

    def __init__(self, max_seconds: float, give: Callable[[FloatArray], None]) -> None:
        """
        Args:
            give: takes the blocks in order; none is longer than a few seconds, and each is the taker's own.
        """
        self._max_seconds = max_seconds
        self._max_samples = most_samples(max_seconds)
        self._give = give
        self.samples = 0
        """Handed on so far, at 16 kHz."""
        self._waiting: list[FloatArray] = []
        self._waiting_samples = 0
        self._rate = SAMPLE_RATE
        self._resampler: av.AudioResampler | None = None

    def expect(self, frames: int, rate: int) -> None:
        """Raises AudioTooLong if so many more samples a channel, at `rate` hertz, are over the limit."""
        if frames * SAMPLE_RATE > (self._max_samples - self.samples) * rate:
            raise too_long(self._max_seconds)

    def add(self, samples: npt.NDArray[Any], rate: int) -> None:
        """Takes `samples`, shaped (channels, n), of any integer or float type, at `rate` hertz.

        The rate may change from call to call. Raises AudioTooLong once more than the limit has come.
        """
        if rate != self._rate:
            self.finish()
            self._rate = rate
        mono = _to_float(samples).mean(axis=0, dtype=np.float32)
        self._waiting.append(mono)
        self._waiting_samples += len(mono)
        if self._waiting_samples >= _BLOCK_SAMPLES:
            self._resample_waiting()

    def finish(self) -> None:
        """Hands on what still waits."""
        self._resample_waiting()
        if self._resampler is not None:
            for frame in self._resampler.resample(None):
                self._keep(frame.to_ndarray()[0])
            self._resampler = None

    def _resample_waiting(self) -> None:
        if not self._waiting:
            return
        block = np.concatenate(self._waiting)
        self._waiting.clear()
        self._waiting_samples = 0
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
            raise too_long(self._max_seconds)
        self._give(np.ascontiguousarray(block, dtype=np.float32))


class Recording:
    """Blocks of samples, joined."""

    def __init__(self) -> None:
        # A bytearray grows in place; a list of arrays would be there twice while it is joined.
        self._done = bytearray()

    def add(self, block: FloatArray) -> None:
        """Whatever a `MonoSink` gives."""
        self._done += block.data.cast("B") if len(block) else b""

    def add_bytes(self, block: bytes | bytearray) -> None:
        """A block of another process."""
        self._done += block

    def samples(self) -> FloatArray:
        """Mono float32 at 16 kHz, possibly of no samples."""
        return np.frombuffer(self._done, dtype=np.float32)


def _to_float(samples: npt.NDArray[Any]) -> npt.NDArray[np.floating[Any]]:
    """Samples of any type as floats with full scale at 1; NaN and infinities become 0."""
    if samples.dtype == np.uint8:
        return (samples.astype(np.float32) - 128.0) / 128.0
    if np.issubdtype(samples.dtype, np.integer):
        return samples.astype(np.float32) / float(-np.iinfo(samples.dtype).min)
    finite: npt.NDArray[np.floating[Any]] = np.nan_to_num(samples, nan=0.0, posinf=0.0, neginf=0.0)
    return finite.clip(-_LOUDEST, _LOUDEST)
