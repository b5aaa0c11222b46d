"""How much of the model's 30 s window a chunk needs.

Whisper pads every clip to 30 s and its encoder pays for all of it. Two shorter windows give the same words:

- The **encoder** hears the audio and a little silence, `ENCODED_TAIL_SECONDS`. The waveform has to be padded with
  silence: features of zero make the model repeat itself.
- The **decoder** wants silence behind the audio, `TAIL_SECONDS`, or it stops early and loops. What the encoder made of
  its tail is repeated until there is enough, and the words come out the same. Its windows come in few sizes, so that
  chunks of different requests share one and are decoded together.

Timestamps have to be decoded: without them, short windows loop.
"""

from __future__ import annotations

import math
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

WINDOW_SECONDS = (7, 12, 17, 23, 30)
"""What the decoder hears."""
FULL_WINDOW = WINDOW_SECONDS[-1]
TAIL_SECONDS = 2.0
"""Silence that has to follow the audio for the decoder."""

ENCODED_TAIL_SECONDS = 1.0
"""Silence that the encoder hears behind the audio."""
_ENCODED_STEP, _ENCODED_LEAST = 0.5, 3.0
"""What is encoded, in seconds: a multiple of the one, the other at least."""
_TAIL_POSITIONS, _EDGE_POSITIONS = 25, 2
"""Half a second of encoded silence is repeated; the very last positions, which the window's edge colours, are not."""

_FFT_SAMPLES = 400
_DYNAMIC_RANGE = 8 / 4
_LEAST = (-10 + 4) / 4
"""Whisper's features are (log10 of the mel power + 4) / 4, of a power of 1e-10 at least."""

WindowRule = Literal["adaptive", "full"]
FloatArray = npt.NDArray[np.float32]


def window_for(seconds: float, rule: WindowRule) -> int:
    """The decoder's window for `seconds` of audio, one of `WINDOW_SECONDS`; audio of up to 30 s fits the full one."""
    if rule == "full":
        return FULL_WINDOW
    return next((size for size in WINDOW_SECONDS if seconds + TAIL_SECONDS <= size), FULL_WINDOW)


def windows_of(rule: WindowRule) -> tuple[int, ...]:
    """The windows that a rule uses, in seconds."""
    return WINDOW_SECONDS if rule == "adaptive" else (FULL_WINDOW,)


def encoded_for(seconds: float, window: int) -> float:
    """How much of a window the encoder has to hear for `seconds` of audio, in seconds."""
    steps = math.ceil((seconds + ENCODED_TAIL_SECONDS) / _ENCODED_STEP)
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
