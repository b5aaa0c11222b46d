"""Where utterances begin and end: one probability of speech after the other in, utterances out."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

import numpy as np

from stt_server.audio.chunks import quietest_window, widest_pause
from stt_server.audio.formats import SAMPLE_RATE
from stt_server.audio.mono import FloatArray
from stt_server.audio.speech_spans import may_be_speech
from stt_server.audio.vad import (
    CERTAIN_PROBABILITY,
    CERTAIN_WINDOWS,
    FAINT_PROBABILITY,
    FAINT_SILENCE_PROBABILITY,
    SILENCE_PROBABILITY,
    SPEECH_PROBABILITY,
    WINDOW,
    speech_spans,
)


def _windows(seconds: float) -> int:
    return math.ceil(seconds * SAMPLE_RATE / WINDOW)


PAD = _windows(0.4)
"""Kept before an utterance, as before a recording's speech: first sounds are heard late."""

TAIL = _windows(0.3)
"""Kept behind it. With less than before a recording's pause, recognition can begin while an endpoint silence lasts: an
utterance is the same whether or not it does."""

FAINT_PAD = _windows(1.0)
"""Kept around what may be speech, of which the VAD hears the loudest part at best."""

LONGEST = _windows(28.0)
"""An utterance is cut by here: Whisper hears 30 s, and finishes a text better with silence behind it."""

_SOONEST_QUIET = _windows(20.0)
"""Where endless speech without a pause may be cut, from its start."""

_CERTAIN_WITHIN = _windows(0.7)
"""The windows that make speech certain lie this close together: clicks are sure now and then, speech all along."""

_SAME_START = _windows(0.5)
"""Sounds before a longer gap don't belong to the speech that begins."""

_FAINT_SILENCE = _windows(2.0)
"""What may be speech is over after this."""


@dataclass(frozen=True)
class Piece:
    """An utterance, in windows from the start of the stream."""

    start: int
    end: int
    """With padding."""
    speech: tuple[tuple[int, int], ...]
    certain: bool

    @property
    def speech_end(self) -> int:
        return self.speech[-1][1] if self.speech else self.end


@dataclass(frozen=True)
class Started:
    """Somebody speaks for certain, and has since `at`."""

    at: int


@dataclass(frozen=True)
class Ended:
    """The utterance that started is over."""

    piece: Piece


@dataclass(frozen=True)
class Perhaps:
    """Something is over that may have been speech; the model has to decide."""

    piece: Piece


Mark = Started | Ended | Perhaps


class Endpointer:
    """Finds utterances. Keeps the probabilities of the current one, and of a second before it."""

    def __init__(self, endpoint_silence: float) -> None:
        """
        Args:
            endpoint_silence: seconds of silence that end an utterance.
        """
        self._endpoint = _windows(endpoint_silence)
        self._now = 0
        """Windows heard."""
        self._probabilities: deque[float] = deque()
        self._loudness: deque[float] = deque()
        self._floor = 0
        """Windows before belong to earlier utterances."""
        self._began: int | None = None
        """Where a sound began that may become an utterance."""
        self._start: int | None = None
        """Where the current utterance's speech began; None: nobody speaks for certain."""
        self._speaking = False
        self._last = 0
        """Behind the last window with speech, or with what may be speech while there is no utterance."""

    @property
    def kept_from(self) -> int:
        """No earlier window is needed any more."""
        return self._now - len(self._probabilities)

    @property
    def in_utterance(self) -> bool:
        return self._start is not None

    @property
    def in_doubt(self) -> bool:
        """A sound goes on that may become an utterance."""
        return self._start is None and self._began is not None

    @property
    def last_speech(self) -> int:
        """Behind the last window with speech in the current utterance."""
        return self._last

    @property
    def silence(self) -> int:
        """Windows since the last speech of the current utterance."""
        return self._now - self._last

    def push(self, probability: float, loudness: float) -> list[Mark]:
        """Takes the next window.

        Args:
            loudness: its root mean square.
        """
        self._probabilities.append(probability)
        self._loudness.append(loudness)
        self._now += 1
        return self._waiting(probability) if self._start is None else self._within(probability)

    def flush(self) -> list[Mark]:
        """Ends what goes on now."""
        if self._start is not None:
            return [self._end(self._last)]
        return self._give_up() if self._began is not None else []

    def so_far(self) -> Piece | None:
        """The current utterance as if it ended here; None where there is none."""
        return None if self._start is None else self._piece(min(self._now, self._last + TAIL))

    def _waiting(self, probability: float) -> list[Mark]:
        if probability >= (FAINT_SILENCE_PROBABILITY if self._speaking else FAINT_PROBABILITY):
            self._speaking = True
            self._last = self._now
            if self._began is None:
                self._began = self._now - 1
        else:
            self._speaking = False
        if self._began is None:
            self._forget(self._now - FAINT_PAD)
            return []
        if probability >= CERTAIN_PROBABILITY and self._is_certain():
            return self._started()
        if self.silence >= max(_FAINT_SILENCE, self._endpoint) or self._now - self._began >= LONGEST:
            return self._give_up()
        return []

    def _is_certain(self) -> bool:
        begin = max(self._floor, self._began or 0, self._now - _CERTAIN_WITHIN)
        sure = sum(p >= CERTAIN_PROBABILITY for p in self._since(begin))
        return sure >= CERTAIN_WINDOWS

    def _started(self) -> list[Mark]:
        """Speech is certain; it began where this stretch of it did. What was before may have been speech too."""
        began = self._began or 0
        spans = self._spans(began, self._now)
        start = spans[-1][0]
        for first, end in reversed(spans):
            if start - end > _SAME_START:
                break
            start = first
        before = self._perhaps(began, max(began, start - PAD))
        self._begin(start)
        return [*before, Started(start)]

    def _begin(self, start: int) -> None:
        self._start, self._began = start, None
        self._speaking, self._last = True, self._now
        self._forget(max(self._floor, start - PAD))

    def _within(self, probability: float) -> list[Mark]:
        self._speaking = probability >= (SILENCE_PROBABILITY if self._speaking else SPEECH_PROBABILITY)
        if self._speaking:
            self._last = self._now
        if self.silence >= self._endpoint:
            return [self._end(self._last)]
        if self._now - self.kept_from >= LONGEST:
            return self._cut()
        return []

    def _end(self, speech_end: int) -> Ended:
        """Ends the utterance behind its last speech."""
        piece = self._piece(min(self._now, speech_end + TAIL))
        self._over(piece.end)
        return Ended(piece)

    def _cut(self) -> list[Mark]:
        """Ends an utterance that is too long at the best place, and goes on with the next one."""
        first = self.kept_from
        probabilities = np.array(self._probabilities, dtype=np.float32)
        spans = speech_spans(probabilities, len(probabilities) * WINDOW)
        at = widest_pause(spans, 0, len(probabilities) * WINDOW)
        if at is not None:
            cut = first + at // WINDOW
        else:
            loudness = np.array(self._loudness, dtype=np.float32)
            cut = first + _SOONEST_QUIET + quietest_window(loudness[_SOONEST_QUIET:], probabilities[_SOONEST_QUIET:])
        last = self._last
        speaking = self._speaking
        ended = self._piece(cut)
        self._floor = cut
        rest = [begin for begin, end in self._spans(cut, self._now) if end > cut]
        self._begin(max(cut, rest[0]) if rest else cut)
        self._last, self._speaking = max(last, cut), speaking
        return [Ended(ended), Started(self._start or 0)]

    def _give_up(self) -> list[Mark]:
        """What was heard is not certainly speech."""
        found = self._perhaps(self._began or 0, self._now)
        self._began, self._speaking = None, False
        self._forget(self._now - FAINT_PAD)
        return found

    def _perhaps(self, begin: int, end: int) -> list[Mark]:
        """What may be speech between two windows."""
        heard = self._between(begin, end)
        spans = speech_spans(heard, len(heard) * WINDOW, FAINT_PROBABILITY, FAINT_SILENCE_PROBABILITY)
        speech = tuple((begin + a // WINDOW, begin + b // WINDOW) for a, b in spans)
        if not speech or not may_be_speech(self._between(speech[0][0], speech[-1][1])):
            return []
        start = max(self.kept_from, self._floor, speech[0][0] - FAINT_PAD)
        self._floor = min(end, speech[-1][1] + FAINT_PAD)
        return [Perhaps(Piece(start, self._floor, speech, certain=False))]

    def _over(self, end: int) -> None:
        self._floor = end
        self._start = self._began = None
        self._speaking = False
        self._forget(end)

    def _piece(self, end: int) -> Piece:
        """The current utterance up to a window."""
        start = self.kept_from
        return Piece(start, end, tuple(self._spans(self._start or 0, end)) or ((start, end),), certain=True)

    def _spans(self, begin: int, end: int) -> list[tuple[int, int]]:
        """Stretches of speech from one window to another."""
        heard = self._between(begin, end)
        return [(begin + a // WINDOW, begin + b // WINDOW) for a, b in speech_spans(heard, len(heard) * WINDOW)]

    def _between(self, begin: int, end: int) -> FloatArray:
        return np.array(self._since(begin)[: end - begin], dtype=np.float32)

    def _since(self, window: int) -> list[float]:
        kept = list(self._probabilities)
        return kept[max(0, window - self.kept_from) :]

    def _forget(self, before: int) -> None:
        """Drops what was heard before a window."""
        before = max(before, self._floor) if self._start is None else before
        while self._probabilities and self.kept_from < before:
            self._probabilities.popleft()
            self._loudness.popleft()
