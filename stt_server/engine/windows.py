"""How much of the model's 30 s window a chunk needs.

Whisper pads every clip to 30 s and its encoder pays for all of it. Two shorter windows give the same words:

- The **encoder** hears the audio and a little silence. The waveform has to be padded with silence: features of zero
  make the model repeat itself.
- The **decoder** wants silence behind the audio too, or it stops early and loops. What the encoder made of its tail is
  repeated until there is enough, and the words come out the same. Its windows come in few sizes, so that chunks of
  different requests share one and are decoded together.

Timestamps have to be decoded: without them, short windows loop.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from faster_whisper.feature_extractor import FeatureExtractor

from stt_server.engine.types import Samples

SAMPLE_RATE = 16000
HOP_LENGTH = 160
FRAMES_PER_SECOND = SAMPLE_RATE // HOP_LENGTH
POSITIONS_PER_SECOND = FRAMES_PER_SECOND // 2
"""Of the encoder's output: its second convolution takes every other frame."""

WINDOW_SECONDS = (8, 12, 17, 23, 30)
"""What the decoder hears."""
FULL_WINDOW = WINDOW_SECONDS[-1]
_ENCODED_STEP, _ENCODED_LEAST = 0.5, 4.0
"""What is encoded, in seconds: a multiple of the one, the other at least."""
_TAIL_POSITIONS, _EDGE_POSITIONS = 75, 2
"""1.5 s of encoded silence are repeated: models loop over shorter repetitions. The very last positions, which the
window's edge colours, are not."""

_FFT_SAMPLES = 400
_DYNAMIC_RANGE = 8 / 4
_LEAST = (-10 + 4) / 4
"""Whisper's features are (log10 of the mel power + 4) / 4, of a power of 1e-10 at least."""

WindowRule = Literal["adaptive", "full"]
FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Tails:
    """How much silence has to follow the audio, in seconds."""

    encoded: float
    """That the encoder hears."""
    decoded: float
    """That the decoder hears, at least; no less than `encoded`."""


TAILS: Mapping[int, Tails] = {384: Tails(2.0, 2.0), 512: Tails(2.0, 2.0)}
"""By the width of a model: tiny and base.

The shortest ones with the word error rate of the full window, by
`buildscripts/bench engine --mix all --language forced --contenders ours,ours-full`. With a second less, both loop more.
"""
CAUTIOUS = Tails(4.0, 4.0)
"""For models that were not measured."""


@dataclass(frozen=True)
class Windows:
    """The rule by which a model's windows are chosen."""

    tails: Tails | None
    """None: always the full window."""

    @classmethod
    def of(cls, width: int, rule: WindowRule) -> Windows:
        """For a model of this width, the number of features of each position of its encoder's output."""
        return cls(TAILS.get(width, CAUTIOUS) if rule == "adaptive" else None)

    @property
    def sizes(self) -> tuple[int, ...]:
        """The decoder's, in seconds, ascending."""
        return (FULL_WINDOW,) if self.tails is None else WINDOW_SECONDS

    def decoded(self, seconds: float) -> int:
        """The decoder's window for `seconds` of audio, at most 30; the full one fits them all."""
        tail = self.tails.decoded if self.tails else 0.0
        return next((size for size in self.sizes if seconds + tail <= size), FULL_WINDOW)

    def encoded(self, seconds: float, window: int) -> float:
        """How much of the decoder's window the encoder has to hear for `seconds` of audio, in seconds."""
        if self.tails is None:
            return float(window)
        steps = math.ceil((seconds + self.tails.encoded) / _ENCODED_STEP)
        return min(float(window), max(_ENCODED_LEAST, steps * _ENCODED_STEP))


def features(extractor: FeatureExtractor, samples: Samples, window: float) -> FloatArray:
    """Log-mel features of `samples` followed by silence.

    Of silence every frame is the same, so those are filled in instead of computed: Whisper's features end
    `_DYNAMIC_RANGE` below their maximum, and at `_LEAST` at the lowest.

    Args:
        window: seconds, a multiple of two frames.

    Returns:
        Shape (1, mels, `window` * 100), C-contiguous, as CTranslate2 takes it.
    """
    frames = round(window * FRAMES_PER_SECOND)
    heard = np.pad(samples[: frames * HOP_LENGTH], (0, _FFT_SAMPLES))
    mel = extractor(heard, padding=0)[:, :frames]
    padded = np.full((1, len(mel), frames), max(float(mel.max()) - _DYNAMIC_RANGE, _LEAST), dtype=np.float32)
    padded[0, :, : mel.shape[1]] = mel
    return padded


def lengthened(encoded: FloatArray, window: int) -> FloatArray:
    """An encoder's output that ends in silence, with as much more of it as fills the decoder's window.

    Args:
        encoded: shape (positions, width); its last `_TAIL_POSITIONS` and edge are of silence.

    Returns:
        Shape (`window` * 50, width).
    """
    missing = window * POSITIONS_PER_SECOND - len(encoded)
    if missing <= 0:
        return encoded
    end = len(encoded) - _EDGE_POSITIONS
    silence = encoded[end - _TAIL_POSITIONS + np.arange(missing) % _TAIL_POSITIONS]
    return np.concatenate([encoded[:end], silence, encoded[end:]])
