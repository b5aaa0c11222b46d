"""Keeps the channels of a recording apart, or mixes them, on the way from a decoder to samples at 16 kHz."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from stt_server.audio.mono import FloatArray, MonoSink, SampleBuffer

Give = Callable[[int, FloatArray], None]
"""Takes a channel's index, from 0, and its next block of samples."""


class Sink(Protocol):
    """Takes the decoded samples of a recording."""

    max_seconds: float
    """Longest recording that it takes."""

    @property
    def samples(self) -> int:
        """Samples given so far, at 16 kHz, of one channel."""
        ...

    def expect(self, frames: int, rate: int) -> None:
        """Raise AudioTooLong if `frames` more samples per channel, at `rate` hertz, would exceed the limit."""
        ...

    def add(self, samples: npt.NDArray[Any], rate: int) -> None:
        """Add `samples` of shape (channels, n) at `rate` hertz. Raises AudioTooLong once the limit is exceeded."""
        ...

    def finish(self) -> None:
        """Give the pending samples."""
        ...


class ChannelSink:
    """A `MonoSink` for each channel. A channel that begins late or ends early is silent for the rest."""

    def __init__(self, max_seconds: float, give: Give) -> None:
        """
        Args:
            max_seconds: of one channel.
            give: called with each block. Blocks of one channel come in order.
        """
        self.max_seconds = max_seconds
        self._give = give
        self._channels = [self._sink(0)]
        self._added: list[tuple[int, int]] = []
        """Samples that every channel has been given, with their rates, for a channel that begins late."""

    def _sink(self, channel: int) -> MonoSink:
        return MonoSink(self.max_seconds, partial(self._give, channel))

    @property
    def samples(self) -> int:
        return self._channels[0].samples

    def expect(self, frames: int, rate: int) -> None:
        self._channels[0].expect(frames, rate)

    def add(self, samples: npt.NDArray[Any], rate: int) -> None:
        while len(self._channels) < len(samples):
            self._begin_channel()
        for channel, sink in enumerate(self._channels):
            if channel < len(samples):
                sink.add(samples[channel : channel + 1], rate)
            else:
                sink.add(np.zeros((1, samples.shape[1]), dtype=np.float32), rate)
        if self._added and self._added[-1][1] == rate:
            self._added[-1] = (self._added[-1][0] + samples.shape[1], rate)
        else:
            self._added.append((samples.shape[1], rate))

    def _begin_channel(self) -> None:
        """Add a channel that is silent up to now."""
        sink = self._sink(len(self._channels))
        for frames, rate in self._added:
            for first in range(0, frames, rate):
                sink.add(np.zeros((1, min(rate, frames - first)), dtype=np.float32), rate)
        self._channels.append(sink)

    def finish(self) -> None:
        for sink in self._channels:
            sink.finish()


def sink_for(max_seconds: float, give: Give, *, separate_channels: bool) -> Sink:
    """A sink that keeps the channels apart, or mixes them and gives all samples to channel 0."""
    return ChannelSink(max_seconds, give) if separate_channels else MonoSink(max_seconds, partial(give, 0))


class ChannelBuffer:
    """Joins the blocks of each channel into one recording."""

    def __init__(self) -> None:
        self._buffers: list[SampleBuffer] = [SampleBuffer()]

    def add(self, channel: int, block: FloatArray) -> None:
        """Append a block of a sink."""
        self._of(channel).add(block)

    def add_bytes(self, channel: int, block: bytes | bytearray) -> None:
        """Append a block received from a child process."""
        self._of(channel).add_bytes(block)

    def _of(self, channel: int) -> SampleBuffer:
        while len(self._buffers) <= channel:
            self._buffers.append(SampleBuffer())
        return self._buffers[channel]

    def channels(self) -> list[FloatArray]:
        """Each channel's samples as mono float32 at 16 kHz; may be empty."""
        return [buffer.samples() for buffer in self._buffers]
