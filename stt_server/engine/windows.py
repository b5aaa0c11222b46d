"""How much of the model's 30 s window a chunk needs.

Whisper pads every clip to 30 s and its encoder pays for all of it. A shorter window gives the same words if the
waveform is padded with silence (features of zero make the model repeat itself) and timestamps are decoded.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt
from faster_whisper.feature_extractor import FeatureExtractor

from stt_server.engine.types import Samples

SAMPLE_RATE = 16000
HOP_LENGTH = 160
FRAMES_PER_SECOND = SAMPLE_RATE // HOP_LENGTH

WINDOW_SECONDS = (8, 10, 15, 20, 30)
"""Few sizes, so that chunks of different requests share one and can be decoded together."""
FULL_WINDOW = WINDOW_SECONDS[-1]
TAIL_SECONDS = 4.0
"""Silence that has to follow the audio in its window: with 2 s the word error rate of Whisper base rose by half."""

_FFT_SAMPLES = 400
_DYNAMIC_RANGE = 8 / 4
_LEAST = (-10 + 4) / 4
"""Whisper's features are (log10 of the mel power + 4) / 4, of a power of 1e-10 at least."""

WindowRule = Literal["adaptive", "full"]


def window_for(seconds: float, rule: WindowRule) -> int:
    """The window for `seconds` of audio, one of `WINDOW_SECONDS`; audio of up to 30 s fits the full one."""
    if rule == "full":
        return FULL_WINDOW
    return next((size for size in WINDOW_SECONDS if seconds + TAIL_SECONDS <= size), FULL_WINDOW)


def windows_of(rule: WindowRule) -> tuple[int, ...]:
    """The windows that a rule uses, in seconds."""
    return WINDOW_SECONDS if rule == "adaptive" else (FULL_WINDOW,)


def features(extractor: FeatureExtractor, samples: Samples, window: int) -> npt.NDArray[np.float32]:
    """Log-mel features of `samples` followed by silence.

    Of silence every frame is the same, so those are filled in instead of computed: Whisper's features end
    `_DYNAMIC_RANGE` below their maximum, and at `_LEAST` at the lowest.

    Returns:
        Shape (1, mels, `window` * 100), C-contiguous, as CTranslate2 takes it.
    """
    frames = window * FRAMES_PER_SECOND
    heard = np.pad(samples[: window * SAMPLE_RATE], (0, _FFT_SAMPLES))
    mel = extractor(heard, padding=0)[:, :frames]
    padded = np.full((1, len(mel), frames), max(float(mel.max()) - _DYNAMIC_RANGE, _LEAST), dtype=np.float32)
    padded[0, :, : mel.shape[1]] = mel
    return padded
