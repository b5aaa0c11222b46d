"""Encodes parts: FLAC where PyAV is installed, else 16-bit WAV."""

from __future__ import annotations

import io
import wave
from fractions import Fraction

import numpy as np

from stt_client.recordings.decoding import LAYOUTS, pyav
from stt_client.recordings.wav import BLOCK_FRAMES, Int16

OVERHEAD_BYTES = 64 * 1024
"""Largest header of an encoded part, with what FLAC adds to samples that it can't compress. Below 1 % in addition."""


def encode(samples: Int16, sample_rate: int) -> bytes:
    """Encode samples of shape (frames, 1 to 8 channels) without loss."""
    av = pyav()
    if av is None:
        return _wav(samples, sample_rate)
    out = io.BytesIO()
    layout = LAYOUTS[samples.shape[1] - 1]
    with av.open(out, "w", format="flac") as container:
        stream = container.add_stream("flac", rate=sample_rate, layout=layout)
        for first in range(0, len(samples), BLOCK_FRAMES):
            packed = np.ascontiguousarray(samples[first : first + BLOCK_FRAMES]).reshape(1, -1)
            frame = av.AudioFrame.from_ndarray(packed, format="s16", layout=layout)
            frame.sample_rate, frame.pts, frame.time_base = sample_rate, first, Fraction(1, sample_rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return out.getvalue()


def _wav(samples: Int16, sample_rate: int) -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(samples.shape[1])
        file.setsampwidth(2)
        file.setframerate(sample_rate)
        file.writeframes(samples.astype("<i2").tobytes())
    return out.getvalue()
