"""Recordings whose words are tones, and a service that recognizes them: shows whether splitting loses a word."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from protos.stt.v1 import speech_pb2
from stt_server.audio import AudioFormat, decode
from tests.support.contract_messages import duration, transcript, word

RATE = 16_000
WORD_S = 0.4
_LOWEST_HZ, _STEP_HZ = 400, 20
_WINDOW = 320


@dataclass(frozen=True)
class ToneSpeech:
    """A recording of the words `w0`, `w1`, ... in turn."""

    samples: npt.NDArray[np.int16]
    starts: list[float]
    """Of the words, in seconds."""

    @property
    def text(self) -> str:
        return " ".join(f"w{number}" for number in range(len(self.starts)))


def tone_speech(words: int, *, seed: int = 7, noise: float = 20.0) -> ToneSpeech:
    """Record up to 100 words, with pauses of 0.1 to 0.8 s between them over some noise."""
    generator = np.random.default_rng(seed)
    pieces, starts, seconds = [], [], 0.0
    for number in range(words):
        pause = generator.uniform(0.1, 0.8)
        times = np.arange(round(WORD_S * RATE)) / RATE
        tone = 8000 * np.sin(2 * np.pi * (_LOWEST_HZ + _STEP_HZ * number) * times)
        pieces += [np.zeros(round(pause * RATE)), tone]
        starts.append(seconds + pause)
        seconds = sum(map(len, pieces)) / RATE
    samples = np.concatenate(pieces) + generator.normal(0, noise, sum(map(len, pieces)))
    return ToneSpeech(samples.astype(np.int16), starts)


def recognize(request: speech_pb2.TranscribeRequest) -> speech_pb2.TranscribeResponse:
    """Answer with a segment for each tone in the audio, and its time as that of its word."""
    format_ = AudioFormat("container", 0)
    if request.format.encoding:
        format_ = AudioFormat("linear16", request.format.sample_rate_hertz, request.format.channel_count or 1)
    samples = decode(request.audio, format_, max_seconds=7200)
    response = transcript()
    del response.segments[:]
    loud = [
        float(np.sqrt(np.mean(samples[at : at + _WINDOW] ** 2))) > 0.05
        for at in range(0, len(samples) - _WINDOW + 1, _WINDOW)
    ]
    for begin, end in _runs(loud):
        start, stop = begin * _WINDOW / RATE, end * _WINDOW / RATE
        text = _word(samples[begin * _WINDOW : end * _WINDOW])
        response.segments.add(
            start=duration(start), end=duration(stop), text=text, model="tiny", words=[word(start, stop, text, 0.9)]
        )
    response.text = " ".join(segment.text for segment in response.segments)
    response.audio_duration.CopyFrom(duration(len(samples) / RATE))
    return response


def _runs(flags: list[bool]) -> list[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.concatenate(([0], np.array(flags, dtype=np.int8), [0]))))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def _word(samples: npt.NDArray[np.float32]) -> str:
    """The word of a tone; half a word, as a cut leaves it, is another."""
    spectrum = np.abs(np.fft.rfft(samples, RATE))
    number = round((int(spectrum.argmax()) - _LOWEST_HZ) / _STEP_HZ)
    return f"w{number}" if len(samples) >= 0.8 * WORD_S * RATE else f"half-w{number}"
