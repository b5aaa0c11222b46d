"""Finds regions of certain and possible speech in the VAD's probabilities."""

from __future__ import annotations

from dataclasses import dataclass

from stt_server.audio.formats import SAMPLE_RATE
from stt_server.audio.mono import FloatArray
from stt_server.audio.vad import (
    CERTAIN_PROBABILITY,
    CERTAIN_WINDOWS,
    FAINT_PROBABILITY,
    FAINT_SILENCE_PROBABILITY,
    WINDOW,
    Span,
    speech_spans,
)

_LONG_PAUSE = 3 * SAMPLE_RATE
"""Longer pauses end a region and are left out."""

_PAD = int(0.4 * SAMPLE_RATE)
"""Samples kept around speech, as in faster-whisper: the VAD detects soft first and last sounds late."""

_FAINT_PAD = SAMPLE_RATE
"""Samples kept around possible speech, of which the VAD detects only the loudest parts."""

_FAINT_WINDOWS = 8
_FAINT_SHARE = 0.2
"""Possible speech has at least 8 windows (0.26 s) above the lower threshold, which are at least this share of those
from the first to the last; or it has one window that the VAD is certain of.

Measured: single tones have 3 windows, loud white noise 6 % of any; a whisper 43 windows and 60 %, a falsetto 17 and
38 %.
"""

_FEWEST_WINDOWS = 3
"""Fewest windows, 0.1 s, of certain or possible speech in a recording of any length."""


@dataclass(frozen=True)
class SpeechRegion:
    """A part of a recording to recognize, before it is cut into chunks."""

    span: Span
    speech: list[Span]
    """Detected speech, in order; within `span`."""
    pad: int | None
    """Samples to keep around speech; None: keep everything."""

    def trim(self, piece: Span) -> Span | None:
        """`piece` without the silence around its speech beyond the pad; None if it has no speech."""
        if self.pad is None:
            return piece
        inside = clip(self.speech, piece)
        if not inside:
            return None
        return max(piece[0], inside[0][0] - self.pad), min(piece[1], inside[-1][1] + self.pad)


def find_speech_regions(probabilities: FloatArray, samples: int) -> list[SpeechRegion]:
    """The regions with certain and with possible speech, in order and without overlap.

    Args:
        probabilities: of each `WINDOW` samples, 0 to 1.
        samples: length of the recording.
    """
    groups = _joined(speech_spans(probabilities, samples), _LONG_PAUSE)
    certain = [
        SpeechRegion((max(0, spans[0][0] - _PAD), min(samples, spans[-1][1] + _PAD)), spans, _PAD)
        for spans in groups
        if is_certain(probabilities, (spans[0][0], spans[-1][1]))
    ]
    return sorted([*certain, *_faint(probabilities, samples, certain)], key=lambda region: region.span)


def is_certain(probabilities: FloatArray, span: Span) -> bool:
    """Whether the VAD was certain of speech in `span` for long enough.

    Args:
        probabilities: of the whole recording. Of one under 0.5 s, such as a single word cut tight, half the windows
            suffice.
    """
    enough = certain_windows(len(probabilities))
    return bool((_windows(probabilities, span) >= CERTAIN_PROBABILITY).sum() >= enough)


def certain_windows(total: int) -> int:
    """How many windows of certain speech are enough in a recording of `total` windows."""
    return min(CERTAIN_WINDOWS, _half(total))


def may_be_speech(probabilities: FloatArray, total: int = 2 * _FAINT_WINDOWS) -> bool:
    """Whether windows with these probabilities, at least one, contain possible speech.

    Args:
        total: windows of the whole recording or stream. Of one under 0.5 s, half of them suffice.
    """
    faint = (probabilities >= FAINT_PROBABILITY).sum()
    enough = max(min(_FAINT_WINDOWS, _half(total)), _FAINT_SHARE * len(probabilities))
    return bool(faint >= enough or probabilities.max() >= CERTAIN_PROBABILITY)


def _half(windows: int) -> int:
    """Half of the windows, rounded up; at least `_FEWEST_WINDOWS`."""
    return max(_FEWEST_WINDOWS, -(-windows // 2))


def _windows(probabilities: FloatArray, span: Span) -> FloatArray:
    return probabilities[span[0] // WINDOW : -(-span[1] // WINDOW)]


def clip(spans: list[Span], piece: Span) -> list[Span]:
    """The parts of `spans` inside `piece`."""
    first, end = piece
    return [(max(a, first), min(b, end)) for a, b in spans if b > first and a < end]


def _faint(probabilities: FloatArray, samples: int, certain: list[SpeechRegion]) -> list[SpeechRegion]:
    """Regions of possible speech between the certain ones: whispers, falsetto, distant speech, speech in noise."""
    spans = speech_spans(probabilities, samples, FAINT_PROBABILITY, FAINT_SILENCE_PROBABILITY)
    edges = [0, *(edge for region in certain for edge in region.span), samples]
    found = []
    for first, end in zip(edges[::2], edges[1::2], strict=True):
        # Pads of neighbouring regions mustn't overlap.
        for group in _joined(clip(spans, (first, end)), 2 * _FAINT_PAD):
            start, stop = group[0][0], group[-1][1]
            if may_be_speech(_windows(probabilities, (start, stop)), len(probabilities)):
                span = max(first, start - _FAINT_PAD), min(end, stop + _FAINT_PAD)
                found.append(SpeechRegion(span, group, _FAINT_PAD))
    return found


def _joined(spans: list[Span], longest_pause: int) -> list[list[Span]]:
    """Group spans with pauses of at most `longest_pause` samples between them."""
    groups: list[list[Span]] = []
    for span in spans:
        if groups and span[0] - groups[-1][-1][1] <= longest_pause:
            groups[-1].append(span)
        else:
            groups.append([span])
    return groups
