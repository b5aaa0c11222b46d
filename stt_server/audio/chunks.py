"""Splits a recording into chunks that fit the model's window."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from stt_server.audio.formats import SAMPLE_RATE
from stt_server.audio.mono import FloatArray
from stt_server.audio.speech_spans import SpeechRegion, clip, find_speech_regions, is_certain
from stt_server.audio.vad import WINDOW, Detector, Span, detect_speech, speech_spans

MAX_CHUNK_SECONDS = 30.0
"""Whisper's window."""

_MAX = int(MAX_CHUNK_SECONDS * SAMPLE_RATE)
_PREFERRED = 28 * SAMPLE_RATE
"""Preferred maximum in samples, if there is a pause to cut in: Whisper ends a text better with silence after it."""

_UNCUT = 14 * SAMPLE_RATE
"""Longest recording in samples that is one chunk, whatever its pauses.

Encoder and decoder take less time for a long recording in sentences, and base makes fewer errors: 24 recordings of 12
to 26 s, joined from sentences of 14 languages: 19 % less processor time, 184 errors instead of 217 in 1161 words.
"""

_EARLIEST_PAUSE = 14 * SAMPLE_RATE
"""Earliest cut in a pause, from the chunk's start. Earlier cuts would only lose context."""

_EARLIEST_QUIET, _LATEST_QUIET = 20 * SAMPLE_RATE, int(29.5 * SAMPLE_RATE)
"""Range in which speech without pauses is cut, from the chunk's start."""

_WIDE_PAUSE = SAMPLE_RATE
"""Of pauses at least this wide, the latest is preferred."""

_SENTENCE_PAUSE = int(0.6 * SAMPLE_RATE)
_SENTENCES_FROM, _SENTENCES_TO = 4 * SAMPLE_RATE, int(9.6 * SAMPLE_RATE)
"""A recording longer than `_UNCUT` is cut between sentences, at pauses of at least `_SENTENCE_PAUSE`: at the last one
in this range from the chunk's start, or else at the first one after it. Short chunks cost less per second of audio, and
a sentence is rarely recognized worse without the one before it; half a sentence is.
"""


@dataclass(frozen=True, eq=False)
class Chunk:
    """A contiguous slice of a recording, at most `MAX_CHUNK_SECONDS` long."""

    samples: FloatArray
    """Mono at 16 kHz; a view into the recording."""
    start: float
    """Seconds from the recording's start."""
    speech: tuple[tuple[float, float], ...]
    """Detected speech without padding: (start, end) in seconds from the chunk's start, in order."""
    speech_certain: bool = True
    """Whether the VAD was certain of speech anywhere in the chunk. If not, it may be whispering or noise, and the
    model's output decides."""
    channel: int = 0
    """1 for the first; 0 where the channels were mixed."""

    @property
    def duration(self) -> float:
        """Seconds."""
        return len(self.samples) / SAMPLE_RATE

    @property
    def speech_end(self) -> float:
        """End of the last detected speech, in seconds from the chunk's start; 0 if there is none."""
        return self.speech[-1][1] if self.speech else 0.0


def split(audio: FloatArray, *, vad_filter: bool, detect: Detector = detect_speech) -> list[Chunk]:
    """Split `audio`, mono at 16 kHz, into chunks of at most 30 s, in order and without overlap.

    With `vad_filter`, the chunks contain all speech with 0.4 s around it and the pauses in between, and possible
    speech with 1 s around it, marked by `speech_certain` = False. They don't contain pauses of over 3 s, and there are
    none if there is no speech. Without the filter, every sample is in exactly one chunk.

    Audio of up to 14 s isn't cut. Otherwise cuts are made between sentences, if there are pauses of 0.6 s;
    else in the widest pause within range; speech without a pause for 28 s is cut where it is quietest.

    Args:
        detect: voice activity detector; scripted in tests.
    """
    if not len(audio):
        return []
    probabilities = detect(audio)
    if vad_filter:
        regions = find_speech_regions(probabilities, len(audio))
    else:
        regions = [SpeechRegion((0, len(audio)), speech_spans(probabilities, len(audio)), pad=None)]
    return [
        _chunk(audio, piece, region.speech, probabilities)
        for region in regions
        for piece in _pieces(region, audio, probabilities)
    ]


def _pieces(region: SpeechRegion, audio: FloatArray, probabilities: FloatArray) -> Iterator[Span]:
    """Cut a region into spans of at most one chunk, trimming the pauses at the cuts."""
    start, end = region.span
    whole = end - start <= _UNCUT
    while start < end:
        cut = end if whole else _next_cut(start, end, audio, probabilities, region.speech)
        piece = region.trim((start, cut))
        if piece is not None:
            yield piece
        start = cut
        if cut < end and (rest := region.trim((cut, end))):
            start = rest[0]


def _chunk(audio: FloatArray, piece: Span, spans: list[Span], probabilities: FloatArray) -> Chunk:
    first, end = piece
    speech = tuple(((a - first) / SAMPLE_RATE, (b - first) / SAMPLE_RATE) for a, b in clip(spans, piece))
    return Chunk(audio[first:end], first / SAMPLE_RATE, speech, is_certain(probabilities, piece))


def _next_cut(start: int, end: int, audio: FloatArray, probabilities: FloatArray, spans: list[Span]) -> int:
    """Where to end a chunk that begins at `start`, in a region longer than `_UNCUT` that ends at `end`."""
    if end - start <= _SENTENCES_TO:
        return end
    speech = clip(spans, (start, end))
    cut = _sentence_end(speech, start, end)
    if cut is not None:
        return cut
    if end - start <= _PREFERRED:
        return end
    cut = widest_pause(speech, start, end)
    if cut is not None:
        return cut
    if end - start <= _MAX:
        return end
    return _quietest(start + _EARLIEST_QUIET, start + _LATEST_QUIET, audio, probabilities)


def _sentence_end(speech: list[Span], start: int, end: int) -> int | None:
    """The middle of the best pause between sentences for a chunk from `start`; None if there is none within range."""
    found: int | None = None
    for (_, pause_start), (pause_end, _) in pairwise(speech):
        cut = (pause_start + pause_end) // 2
        if pause_end - pause_start < _SENTENCE_PAUSE or cut < start + _SENTENCES_FROM:
            continue
        if cut > start + _SENTENCES_TO:
            return found or (cut if cut <= start + _PREFERRED else None)
        found = cut
    return found


def widest_pause(speech: list[Span], start: int, end: int) -> int | None:
    """The middle of the widest pause within range of a chunk from `start`; None if there is none."""
    earliest, latest = start + _EARLIEST_PAUSE, start + _PREFERRED
    edges = [start, *(edge for span in speech for edge in span), end]
    best: tuple[int, int] | None = None
    for pause_start, pause_end in zip(edges[::2], edges[1::2], strict=True):
        width = min(pause_end, latest) - max(pause_start, earliest)
        if width <= 0:
            continue
        cut = min(max((pause_start + pause_end) // 2, earliest), latest)
        best = max(best or (0, 0), (min(width, _WIDE_PAUSE), cut))
    return best[1] if best else None


def _quietest(first: int, end: int, audio: FloatArray, probabilities: FloatArray) -> int:
    """The middle of the window, between samples `first` and `end`, that is least likely to be inside a word."""
    windows = range(-(-first // WINDOW), end // WINDOW)
    loudness = loudness_of(audio[windows.start * WINDOW : windows.stop * WINDOW])
    quietest = quietest_window(loudness, probabilities[windows.start : windows.stop])
    return (windows.start + quietest) * WINDOW + WINDOW // 2


def loudness_of(audio: FloatArray) -> FloatArray:
    """Root mean square of each window. `audio` must be a whole number of windows long."""
    loudness: FloatArray = np.sqrt(np.mean(np.square(audio.reshape(-1, WINDOW)), axis=1))
    return loudness


def quietest_window(loudness: FloatArray, probabilities: FloatArray) -> int:
    """Index of the window that is least likely to be inside a word.

    Adds the VAD's probability, which varies little in fluent speech, and the relative loudness, whose dips background
    noise hides. The sum is smoothed over three windows, about 0.1 s.
    """
    cost = probabilities + loudness / max(float(loudness.max()), 1e-9)
    smooth = np.convolve(np.pad(cost, 1, mode="edge"), np.ones(3) / 3, mode="valid")
    return int(np.argmin(smooth))
