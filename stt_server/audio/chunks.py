"""A recording -> the chunks that a model can hear in one go."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from stt_server.audio.formats import SAMPLE_RATE
from stt_server.audio.mono import FloatArray
from stt_server.audio.passages import Passage, clip, find_passages, is_certain
from stt_server.audio.vad import WINDOW, Detector, Span, detect_speech, speech_spans

MAX_CHUNK_SECONDS = 30.0
"""Whisper's window."""

_MAX = int(MAX_CHUNK_SECONDS * SAMPLE_RATE)
_AIM = 28 * SAMPLE_RATE
"""Chunks end by here if there is a pause to end in: Whisper finishes a text better with silence behind it."""

_SOONEST_PAUSE = 14 * SAMPLE_RATE
"""Cuts nearer to a chunk's start would trade context for nothing."""

_SOONEST_QUIET, _LATEST_QUIET = 20 * SAMPLE_RATE, int(29.5 * SAMPLE_RATE)
"""Where endless speech is cut, from the chunk's start."""

_WIDE_PAUSE = SAMPLE_RATE
"""Between sentences. Among pauses of at least this width, the latest is the best."""


@dataclass(frozen=True, eq=False)
class Chunk:
    """One contiguous slice of a recording, at most `MAX_CHUNK_SECONDS` long."""

    samples: FloatArray
    """Mono at 16 kHz; a view into the recording."""
    start: float
    """Seconds from the recording's start."""
    speech: tuple[tuple[float, float], ...]
    """Where the VAD heard speech, without padding: (start, end) in seconds from the chunk's start, in order."""
    certain: bool = True
    """Whether the VAD was sure anywhere in here. If not, this may be a whisper or noise: what a model makes of it has
    to convince by itself."""

    @property
    def duration(self) -> float:
        """Seconds."""
        return len(self.samples) / SAMPLE_RATE

    @property
    def speech_end(self) -> float:
        """End of the last speech, in seconds from the chunk's start; 0 where there is none."""
        return self.speech[-1][1] if self.speech else 0.0


def split(audio: FloatArray, *, vad_filter: bool, detect: Detector = detect_speech) -> list[Chunk]:
    """Cuts `audio`, mono at 16 kHz, into chunks of at most 30 s, in order and without overlap.

    With `vad_filter`, every stretch of speech is in the chunks, with 0.4 s around it and the pauses in between, and so
    is what may be speech, marked as not certain; pauses of over 3 s and recordings without speech are not. Without,
    every sample is in exactly one chunk.

    Cuts fall in pauses, the widest within reach; speech without a pause for 28 s is cut where it is quietest.

    Args:
        detect: what hears speech; tests script it.
    """
    if not len(audio):
        return []
    probabilities = detect(audio)
    if vad_filter:
        passages = find_passages(probabilities, len(audio))
    else:
        passages = [Passage((0, len(audio)), speech_spans(probabilities, len(audio)), pad=None)]
    return [
        _chunk(audio, piece, passage.speech, probabilities)
        for passage in passages
        for piece in _pieces(passage, audio, probabilities)
    ]


def _pieces(passage: Passage, audio: FloatArray, probabilities: FloatArray) -> Iterator[Span]:
    """Cuts a passage to the length of chunks, without what is left of the pauses in which it is cut."""
    start, end = passage.span
    while start < end:
        cut = _next_cut(start, end, audio, probabilities, passage.speech)
        piece = passage.trim((start, cut))
        if piece is not None:
            yield piece
        start = cut
        if cut < end and (rest := passage.trim((cut, end))):
            start = rest[0]


def _chunk(audio: FloatArray, piece: Span, spans: list[Span], probabilities: FloatArray) -> Chunk:
    first, end = piece
    speech = tuple(((a - first) / SAMPLE_RATE, (b - first) / SAMPLE_RATE) for a, b in clip(spans, piece))
    return Chunk(audio[first:end], first / SAMPLE_RATE, speech, is_certain(probabilities, piece))


def _next_cut(start: int, end: int, audio: FloatArray, probabilities: FloatArray, spans: list[Span]) -> int:
    """Where the chunk from `start` ends: `end` itself if that is near enough."""
    if end - start <= _AIM:
        return end
    cut = widest_pause(clip(spans, (start, end)), start, end)
    if cut is not None:
        return cut
    if end - start <= _MAX:
        return end
    return _quietest(start + _SOONEST_QUIET, start + _LATEST_QUIET, audio, probabilities)


def widest_pause(speech: list[Span], start: int, end: int) -> int | None:
    """The middle of the widest pause in reach of a chunk from `start`; None where there is none."""
    soonest, latest = start + _SOONEST_PAUSE, start + _AIM
    edges = [start, *(edge for span in speech for edge in span), end]
    best: tuple[int, int] | None = None
    for pause_start, pause_end in zip(edges[::2], edges[1::2], strict=True):
        width = min(pause_end, latest) - max(pause_start, soonest)
        if width <= 0:
            continue
        cut = min(max((pause_start + pause_end) // 2, soonest), latest)
        best = max(best or (0, 0), (min(width, _WIDE_PAUSE), cut))
    return best[1] if best else None


def _quietest(first: int, end: int, audio: FloatArray, probabilities: FloatArray) -> int:
    """The middle of the window between samples `first` and `end` that is least likely to be inside a word."""
    windows = range(-(-first // WINDOW), end // WINDOW)
    loudness = loudness_of(audio[windows.start * WINDOW : windows.stop * WINDOW])
    quietest = quietest_window(loudness, probabilities[windows.start : windows.stop])
    return (windows.start + quietest) * WINDOW + WINDOW // 2


def loudness_of(audio: FloatArray) -> FloatArray:
    """The root mean square of each window of a whole number of them."""
    loudness: FloatArray = np.sqrt(np.mean(np.square(audio.reshape(-1, WINDOW)), axis=1))
    return loudness


def quietest_window(loudness: FloatArray, probabilities: FloatArray) -> int:
    """The index of the window that is least likely to be inside a word.

    The VAD hardly wavers within fluent speech, and background sound hides the energy's dips: each makes up for the
    other. Both are smoothed over three windows, about 0.1 s.
    """
    cost = probabilities + loudness / max(float(loudness.max()), 1e-9)
    smooth = np.convolve(np.pad(cost, 1, mode="edge"), np.ones(3) / 3, mode="valid")
    return int(np.argmin(smooth))
