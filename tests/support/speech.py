"""Real speech for tests, from the clips of `samples/`."""

from __future__ import annotations

import io
import re
import wave
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

from stt_server.audio import AudioFormat, decode
from stt_server.testing.paths import SAMPLES

RATE = 16000
Samples = npt.NDArray[np.float32]


def clip(language: str, name: str) -> Path:
    return SAMPLES / language / f"{name}.wav"


def samples_of(path: Path) -> Samples:
    """A WAV file as mono float32 at 16 kHz."""
    return decode(path.read_bytes(), AudioFormat("container", 0), max_seconds=600)


def silence(seconds: float) -> Samples:
    return np.zeros(int(seconds * RATE), dtype=np.float32)


def wav_of(samples: Samples) -> bytes:
    """A 16-bit WAV file."""
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())
    return out.getvalue()


def linear16(samples: Samples, rate: int = RATE) -> bytes:
    """16-bit PCM at another sample rate, without a header."""
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples[np.newaxis]), format="fltp", layout="mono")
    frame.sample_rate = RATE
    resampler = av.AudioResampler("s16", "mono", rate)
    frames = (*resampler.resample(frame), *resampler.resample(None))
    return b"".join(frame.to_ndarray().astype("<i2").tobytes() for frame in frames)


def words(text: str) -> str:
    """The words of a text, casefolded, without punctuation."""
    return " ".join(re.findall(r"\w+", text.casefold()))
