"""Shortened windows: how much of the model's 30 s window a chunk needs.

Whisper pads every clip to 30 s, and its encoder costs the same for all of it. Two shorter windows give the same words:

- The **encoder** gets the audio and a little silence. The waveform itself is padded: features of zero make the model
  repeat itself.
- The **decoder** needs silence after the audio too, or it stops early and loops. The encoder's output for the silence
  is repeated until there is enough; the words come out the same. There are only a few window sizes, so that chunks of
  different requests can share a batch.

Timestamps must be decoded: without them, short windows loop.
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
"""Positions in the encoder's output: its second convolution has a stride of two frames."""

WINDOW_SECONDS = (8, 12, 17, 23, 30)
"""Sizes of the decoder's window."""
FULL_WINDOW = WINDOW_SECONDS[-1]
_ENCODED_STEP, _ENCODED_LEAST = 0.5, 4.0
"""The encoder's window is a multiple of the first and at least the second, in seconds."""
_TAIL_POSITIONS, _EDGE_POSITIONS = 75, 2
"""1.5 s of encoded silence are repeated, since models loop over shorter repetitions; not the last positions, which the
edge of the window distorts."""

_FFT_SAMPLES = 400
_DYNAMIC_RANGE = 8 / 4
_LEAST = (-10 + 4) / 4
"""Whisper's features are (log10(mel power) + 4) / 4, with a power of at least 1e-10."""

LEAST_TAIL = 2.0
"""Shortest tail in seconds: `lengthened` repeats 1.5 s of it."""

WindowRule = Literal["adaptive", "full"]
FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Tails:
    """Seconds of silence that must follow the audio."""

    encoded: float
    """In the encoder's window."""
    decoded: float
    """In the decoder's window; at least `encoded`."""


TAILS: Mapping[int, Tails] = {384: Tails(2.0, 2.0), 512: Tails(2.0, 2.0)}
"""By the width of a model: tiny (384) and base (512).

The shortest ones with the word error rate of the full window, measured by
`buildscripts/bench engine --mix all --language forced --contenders ours,ours-full`. With a second less, both loop more.
"""
CAUTIOUS = Tails(4.0, 4.0)
"""For models that haven't been measured."""


@dataclass(frozen=True)
class Windows:
    """The windows of a model."""

    tails: Tails | None
    """None: always the full window."""

    @classmethod
    def of(cls, width: int, rule: WindowRule, tail: float | None = None) -> Windows:
        """For a model whose encoder's output has this width.

        Args:
            tail: seconds of silence after the audio, at least `LEAST_TAIL`; None: as measured for this width.
        """
        if rule == "full":
            return cls(None)
        return cls(TAILS.get(width, CAUTIOUS) if tail is None else Tails(tail, tail))

    @property
    def sizes(self) -> tuple[int, ...]:
        """The decoder's windows in seconds, ascending."""
        return (FULL_WINDOW,) if self.tails is None else WINDOW_SECONDS

    def decoded(self, seconds: float) -> int:
        """The smallest decoder window that fits `seconds` of audio, at most 30."""
        tail = self.tails.decoded if self.tails else 0.0
        return next((size for size in self.sizes if seconds + tail <= size), FULL_WINDOW)

    def encoded(self, seconds: float, window: int) -> float:
        """The encoder's window in seconds, for `seconds` of audio in the decoder's `window`."""
        if self.tails is None:
            return float(window)
        steps = math.ceil((seconds + self.tails.encoded) / _ENCODED_STEP)
        return min(float(window), max(_ENCODED_LEAST, steps * _ENCODED_STEP))


def features(extractor: FeatureExtractor, samples: Samples, window: float) -> FloatArray:
    """Log-mel features of `samples` followed by silence.

    All frames of silence are the same, so they are filled in and not computed: the lowest value is `_DYNAMIC_RANGE`
    below the maximum, but at least `_LEAST`.

    Args:
        window: seconds, a multiple of two frames.

    Returns:
        Shape (1, mels, `window` * 100), C-contiguous, as CTranslate2 needs it.
    """
    frames = round(window * FRAMES_PER_SECOND)
    padded_samples = np.pad(samples[: frames * HOP_LENGTH], (0, _FFT_SAMPLES))
    mel = extractor(padded_samples, padding=0)[:, :frames]
    padded = np.full((1, len(mel), frames), max(float(mel.max()) - _DYNAMIC_RANGE, _LEAST), dtype=np.float32)
    padded[0, :, : mel.shape[1]] = mel
    return padded


def lengthened(encoded: FloatArray, window: int) -> FloatArray:
    """Repeat the silence at the end of an encoder's output until it fills the decoder's window.

    Args:
        encoded: shape (positions, width); its last `_TAIL_POSITIONS` + `_EDGE_POSITIONS` are silence.

    Returns:
        Shape (`window` * 50, width).
    """
    missing = window * POSITIONS_PER_SECOND - len(encoded)
    if missing <= 0:
        return encoded
    end = len(encoded) - _EDGE_POSITIONS
    silence = encoded[end - _TAIL_POSITIONS + np.arange(missing) % _TAIL_POSITIONS]
    return np.concatenate([encoded[:end], silence, encoded[end:]])
