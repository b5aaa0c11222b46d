"""Where in a recording somebody speaks, or may: the VAD's windows -> passages with silence around them."""

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
"""Longer pauses are not carried along, and always end a passage."""

_PAD = int(0.4 * SAMPLE_RATE)
"""Kept around speech, as faster-whisper does: the VAD hears soft first and last sounds late."""

_FAINT_PAD = SAMPLE_RATE
"""Kept around what may be speech: of that, the VAD hears the loudest part at best."""

_FAINT_WINDOWS = 8
_FAINT_SHARE = 0.2
"""What may be speech fills at least so many windows, 0.26 s, and this share of those from its first to its last; or it
holds a window of which the VAD is sure.

Measured: single tones fill 3, loud white noise 6 % of any; a whisper 43 and 60 %, a falsetto 17 and 38 %.
"""


@dataclass(frozen=True)
class Passage:
    """A part of a recording that goes to a model, before it is cut to the length of chunks."""

    span: Span
    speech: list[Span]
    """Where the VAD heard speech, in order; within `span`."""
    pad: int | None
    """Samples to keep around speech; None: all of them."""

    def trim(self, piece: Span) -> Span | None:
        """`piece` without the silence around its speech, but for the pad; None where nothing is left."""
        if self.pad is None:
            return piece
        inside = clip(self.speech, piece)
        if not inside:
            return None
        return max(piece[0], inside[0][0] - self.pad), min(piece[1], inside[-1][1] + self.pad)


def find_passages(probabilities: FloatArray, samples: int) -> list[Passage]:
    """The passages with speech, and those that may have some, in order and without overlap.

    Args:
        probabilities: of each `WINDOW` samples, from 0 to 1.
        samples: how long the recording is.
    """
    heard = _joined(speech_spans(probabilities, samples), _LONG_PAUSE)
    certain = [
        Passage((max(0, spans[0][0] - _PAD), min(samples, spans[-1][1] + _PAD)), spans, _PAD)
        for spans in heard
        if is_certain(probabilities, (spans[0][0], spans[-1][1]))
    ]
    return sorted([*certain, *_faint(probabilities, samples, certain)], key=lambda passage: passage.span)


def is_certain(probabilities: FloatArray, span: Span) -> bool:
    """Whether the VAD was sure of speech in `span`, for long enough."""
    return bool((_windows(probabilities, span) >= CERTAIN_PROBABILITY).sum() >= CERTAIN_WINDOWS)


def may_be_speech(heard: FloatArray) -> bool:
    """Whether somebody may have spoken in some windows, by their probabilities; at least one."""
    filled = (heard >= FAINT_PROBABILITY).sum()
    return bool(filled >= max(_FAINT_WINDOWS, _FAINT_SHARE * len(heard)) or heard.max() >= CERTAIN_PROBABILITY)


def _windows(probabilities: FloatArray, span: Span) -> FloatArray:
    return probabilities[span[0] // WINDOW : -(-span[1] // WINDOW)]


def clip(spans: list[Span], piece: Span) -> list[Span]:
    """The parts of `spans` inside `piece`."""
    first, end = piece
    return [(max(a, first), min(b, end)) for a, b in spans if b > first and a < end]


def _faint(probabilities: FloatArray, samples: int, certain: list[Passage]) -> list[Passage]:
    """What may be speech between the certain passages: whispers, falsetto, speech far away or in noise."""
    spans = speech_spans(probabilities, samples, FAINT_PROBABILITY, FAINT_SILENCE_PROBABILITY)
    edges = [0, *(edge for passage in certain for edge in passage.span), samples]
    found = []
    for first, end in zip(edges[::2], edges[1::2], strict=True):
        # Pads of neighbours must not overlap, or something would be heard twice.
        for group in _joined(clip(spans, (first, end)), 2 * _FAINT_PAD):
            start, stop = group[0][0], group[-1][1]
            if may_be_speech(_windows(probabilities, (start, stop))):
                found.append(Passage((max(first, start - _FAINT_PAD), min(end, stop + _FAINT_PAD)), group, _FAINT_PAD))
    return found


def _joined(spans: list[Span], longest_pause: int) -> list[list[Span]]:
    """Groups of spans with no pause between them that is longer, in samples."""
    groups: list[list[Span]] = []
    for span in spans:
        if groups and span[0] - groups[-1][-1][1] <= longest_pause:
            groups[-1].append(span)
        else:
            groups.append([span])
    return groups
