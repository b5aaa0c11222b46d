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

WINDOW_SECONDS = (10, 15, 20, 30)
"""Few sizes, so that chunks of different requests share one and can be decoded together."""
FULL_WINDOW = WINDOW_SECONDS[-1]
TAIL_SECONDS = 4.0
"""Silence that has to follow the audio in its window: with 2 s the word error rate of Whisper base rose by half."""

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

    Returns:
        Shape (1, mels, `window` * 100), C-contiguous, as CTranslate2 takes it.
    """
    length = window * SAMPLE_RATE
    padded = np.zeros(length, dtype=np.float32)
    padded[: min(len(samples), length)] = samples[:length]
    mel = extractor(padded, padding=0)[:, : window * FRAMES_PER_SECOND]
    return np.ascontiguousarray(mel[None], dtype=np.float32)
