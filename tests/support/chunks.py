"""Chunks for tests of the engine that script what the model says."""

from __future__ import annotations

import numpy as np

from stt_server.audio import SAMPLE_RATE, Chunk


def chunk(*, start: float = 0.0, speech_certain: bool = True) -> Chunk:
    """Three seconds of zeros in which speech was detected from 0.2 to 2.8 s."""
    return Chunk(np.zeros(3 * SAMPLE_RATE, dtype=np.float32), start, ((0.2, 2.8),), speech_certain)
