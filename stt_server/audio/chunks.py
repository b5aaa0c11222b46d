"""A recording -> the chunks that a model can hear in one go."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from stt_server.audio.formats import SAMPLE_RATE
from stt_server.audio.mono import FloatArray
from stt_server.audio.speech_spans import Passage, clip, find_passages, is_certain
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
"""Among pauses of at least this width, the latest is the best."""

_SENTENCE_PAUSE = int(0.6 * SAMPLE_RATE)
_SENTENCES_FROM, _SENTENCES_TO = 4 * SAMPLE_RATE, int(9.6 * SAMPLE_RATE)
"""A recording too long for one chunk is cut between sentences, where a pause of at least so much tells them: at the
last one in this reach of a chunk's start, else at the first behind it. Short chunks cost less for each second, and a
sentence rarely needs the one before it to be understood; half of one does.
"""


@dataclass(frozen=True, eq=False)
class Chunk:
    """One contiguous slice of a recording, at most `MAX_CHUNK_SECONDS` long."""

    samples: FloatArray
    """Mono at 16 kHz; a view into the recording."""
    start: float
    """Seconds from the recording's start."""
    speech: tuple[tuple[float, float], ...]
    """Where the VAD heard speech, without padding: (start, end) in seconds from the chunk's start, in order."""
    speech_certain: bool = True
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

    What fits into one chunk stays whole. Other cuts fall between sentences, where there are pauses that tell; else in
    the widest pause within reach; speech without a pause for 28 s is cut where it is quietest.

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
    whole = end - start <= _AIM
    while start < end:
        cut = end if whole else _next_cut(start, end, audio, probabilities, passage.speech)
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
    """Where the chunk from `start` of a long passage ends: `end` itself if that is near enough."""
    if end - start <= _SENTENCES_TO:
        return end
    speech = clip(spans, (start, end))
    cut = _sentence_end(speech, start, end)
    if cut is not None:
        return cut
    if end - start <= _AIM:
        return end
    cut = widest_pause(speech, start, end)
    if cut is not None:
        return cut
    if end - start <= _MAX:
        return end
    return _quietest(start + _SOONEST_QUIET, start + _LATEST_QUIET, audio, probabilities)


def _sentence_end(speech: list[Span], start: int, end: int) -> int | None:
    """The middle of the pause between sentences in which a chunk from `start` is to end; None: none in reach."""
    found: int | None = None
    for (_, pause_start), (pause_end, _) in pairwise(speech):
        cut = (pause_start + pause_end) // 2
        if pause_end - pause_start < _SENTENCE_PAUSE or cut < start + _SENTENCES_FROM:
            continue
        if cut > start + _SENTENCES_TO:
            return found or (cut if cut <= start + _AIM else None)
        found = cut
    return found


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
