"""Mixes channels to mono, for files and live audio alike.

Channels are averaged. Where they cancel each other out (a microphone wired with the wrong polarity, a karaoke effect),
the loudest channel is taken instead.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]

_CANCELLED, _RESTORED = 0.1, 0.3
"""Energy of the average over that of as many unrelated channels: below the first, the channels cancel each other out;
above the second, they don't any more. Unrelated channels have 1, equal ones their number, opposite ones 0."""

_LOUDER = 4.0
"""Ratio of energies at which another channel replaces the one that is taken."""

_MEMORY_SECONDS = 1.0
"""Time constant of the energies: long enough that single tones of ordinary stereo don't count as cancellation."""

_BLOCKS_PER_SECOND = 50
"""Decisions. Each one is faded in over its block of 20 ms, so that it is inaudible."""

_MIN_ENERGY = 1e-9
"""Energies per sample below it (-90 dB of full scale) are rounding noise and decide nothing."""


class ChannelMixer:
    """Mixes one recording or stream to mono, block by block. Decisions depend on past audio only."""

    def __init__(self) -> None:
        self._energies: npt.NDArray[np.float64] = np.zeros(0)
        """Decaying sums of squared sample differences: of the average, then of each channel."""
        self._weight = 0.0
        """Samples that the sums stand for."""
        self._taken: int | None = None
        """The channel that replaces the average."""

    def mix(self, planar: npt.NDArray[np.floating[Any]], rate: int) -> FloatArray:
        """Mono samples for `planar`, of shape (channels, n), at `rate` hertz."""
        average: FloatArray = planar.mean(axis=0, dtype=np.float32)
        channels = len(planar)
        if channels == 1:
            return average
        if len(self._energies) != channels + 1:
            self._energies, self._weight, self._taken = np.zeros(channels + 1), 0.0, None
        size = max(rate // _BLOCKS_PER_SECOND, 1)
        signals = [average, *planar]
        energies = np.stack([_energies(signal, size) for signal in signals], axis=1)
        for block, energy in enumerate(energies):
            part = slice(block * size, (block + 1) * size)
            before, self._taken = self._taken, self._decide(energy, len(average[part]), rate)
            if before is None and self._taken is None:
                continue
            average[part] = _faded(signals, before, self._taken, part)
        return average

    def _decide(self, energy: npt.NDArray[np.float64], samples: int, rate: int) -> int | None:
        """The channel to take instead of the average from this block on, if any."""
        kept = math.exp(-samples / (rate * _MEMORY_SECONDS))
        self._energies = self._energies * kept + energy
        self._weight = self._weight * kept + samples
        average, each = self._energies[0], self._energies[1:]
        if each.max() < _MIN_ENERGY * self._weight:
            return self._taken
        unrelated = each.sum() / len(each) ** 2
        if average > (_CANCELLED if self._taken is None else _RESTORED) * unrelated:
            return None
        loudest = int(each.argmax())
        return loudest if self._taken is None or each[loudest] > _LOUDER * each[self._taken] else self._taken


def _energies(signal: npt.NDArray[np.floating[Any]], size: int) -> npt.NDArray[np.float64]:
    """Sums of squares of the differences between neighbouring samples, for each block of `size` samples.

    Differences rather than samples: mains hum and offsets, which channels share, would hide that speech cancels out.
    """
    steps = np.diff(signal, prepend=signal[:1]).astype(np.float32, copy=False)
    whole = len(steps) // size * size
    blocks = steps[:whole].reshape(-1, size)
    energies = np.einsum("bi,bi->b", blocks, blocks)
    rest = steps[whole:]
    return (np.append(energies, rest @ rest) if len(rest) else energies).astype(np.float64)


def _faded(signals: list[npt.NDArray[Any]], before: int | None, after: int | None, part: slice) -> FloatArray:
    """One block, faded from one signal to another; channel `None` is the average."""
    old, new = (signals[0 if channel is None else channel + 1][part] for channel in (before, after))
    if before == after:
        return new.astype(np.float32)
    share = np.linspace(0.0, 1.0, len(new), endpoint=False, dtype=np.float32)
    return (old * (1 - share) + new * share).astype(np.float32)
