"""Finds where utterances start and end: a probability of speech per window in, speech events out."""

from __future__ import annotations

import math
from collections import deque

import numpy as np

from stt_server.audio.chunks import quietest_window, widest_pause
from stt_server.audio.formats import SAMPLE_RATE
from stt_server.audio.mono import FloatArray
from stt_server.audio.speech_spans import certain_windows, may_be_speech
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
from stt_server.streaming.events import (
    WINDOW_SECONDS,
    PossibleSpeech,
    SpeechEnded,
    SpeechEvent,
    SpeechStarted,
    UtteranceBounds,
)


def _windows(seconds: float) -> int:
    return math.ceil(seconds * SAMPLE_RATE / WINDOW)


PAD = _windows(0.4)
"""Windows kept before an utterance, as in recordings: VAD detects first sounds late."""

TAIL = _windows(0.3)
"""Windows kept after an utterance: fewer than in recordings, so that a speculative recognition during the endpoint
silence gets exactly the audio of the final one."""

FAINT_PAD = _windows(1.0)
"""Windows kept around possible speech, of which VAD detects the loudest part at best."""

LONGEST = _windows(28.0)
"""Longest utterance, in windows: Whisper takes 30 s, and completes a text better if silence follows."""

_SOONEST_QUIET = _windows(20.0)
"""Earliest cut of speech without a pause, in windows from its start."""

_CERTAIN_WITHIN = _windows(0.7)
"""Windows within which speech must become certain: clicks have single certain windows, speech has many in a row."""

_SAME_START = _windows(0.5)
"""Longest gap in windows between a sound and the speech that it belongs to."""

_FAINT_SILENCE = _windows(2.0)
"""Windows of silence after which possible speech has ended."""


class Endpointer:
    """Finds utterances. Keeps the probabilities of the current one and of one second before it."""

    def __init__(self, endpoint_silence: float) -> None:
        """
        Args:
            endpoint_silence: seconds of silence that end an utterance.
        """
        self._endpoint = _windows(endpoint_silence)
        self._now = 0
        """Windows processed."""
        self._probabilities: deque[float] = deque()
        self._loudness: deque[float] = deque()
        self._floor = 0
        """End of the last utterance: earlier windows belong to it."""
        self._began: int | None = None
        """Start of a sound that may become an utterance."""
        self._start: int | None = None
        """Start of the current utterance's speech; None outside of utterances."""
        self._speaking = False
        self._last = 0
        """End of the last speech; outside of utterances, of the last possible speech."""

    @property
    def kept_from(self) -> int:
        """First window that is still needed."""
        return self._now - len(self._probabilities)

    @property
    def in_utterance(self) -> bool:
        return self._start is not None

    @property
    def last_speech(self) -> int:
        """End of the current utterance's last speech, in windows of the stream."""
        return self._last

    @property
    def silence(self) -> int:
        """Windows since the last speech of the current utterance."""
        return self._now - self._last

    @property
    def _seconds(self) -> float:
        """Length of the processed stream."""
        return self._now * WINDOW_SECONDS

    def push(self, probability: float, loudness: float) -> list[SpeechEvent]:
        """Process the next window.

        Args:
            probability: of speech, 0 to 1.
            loudness: root mean square of the samples.
        """
        self._probabilities.append(probability)
        self._loudness.append(loudness)
        self._now += 1
        return self._outside(probability) if self._start is None else self._inside(probability)

    def flush(self) -> list[SpeechEvent]:
        """End the current utterance, or possible speech, at once."""
        events: list[SpeechEvent] = []
        # Of a stream under 0.5 s, such as a single word, fewer windows are enough: see `certain_windows`.
        if self._began is not None and self._is_certain(certain_windows(self._now)):
            events = self._start_utterance()
        if self._start is not None:
            return [*events, self._end()]
        return self._give_up() if self._began is not None else []

    def so_far(self) -> UtteranceBounds | None:
        """The current utterance as if it ended here; None outside of one."""
        return None if self._start is None else self._bounds(min(self._now, self._last + TAIL))

    def _outside(self, probability: float) -> list[SpeechEvent]:
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
            return self._start_utterance()
        if self.silence >= max(_FAINT_SILENCE, self._endpoint) or self._now - self._began >= LONGEST:
            return self._give_up()
        return []

    def _is_certain(self, enough: int = CERTAIN_WINDOWS) -> bool:
        begin = max(self._floor, self._began or 0, self._now - _CERTAIN_WITHIN)
        sure = sum(p >= CERTAIN_PROBABILITY for p in self._since(begin))
        return sure >= enough

    def _start_utterance(self) -> list[SpeechEvent]:
        """Start an utterance at the beginning of this run of speech; sounds before it are possible speech."""
        began = self._began or 0
        spans = self._spans(began, self._now)
        start = spans[-1][0]
        for first, end in reversed(spans):
            if start - end > _SAME_START:
                break
            start = first
        before = self._possible_speech(began, max(began, start - PAD))
        self._begin(start)
        return [*before, SpeechStarted(start * WINDOW_SECONDS)]

    def _begin(self, start: int) -> None:
        self._start, self._began = start, None
        self._speaking, self._last = True, self._now
        self._forget(max(self._floor, start - PAD))

    def _inside(self, probability: float) -> list[SpeechEvent]:
        self._speaking = probability >= (SILENCE_PROBABILITY if self._speaking else SPEECH_PROBABILITY)
        if self._speaking:
            self._last = self._now
        if self.silence >= self._endpoint:
            return [self._end()]
        if self._now - self.kept_from >= LONGEST:
            return self._cut()
        return []

    def _end(self) -> SpeechEnded:
        """End the utterance after its last speech."""
        bounds = self._bounds(min(self._now, self._last + TAIL))
        self._floor = bounds.end
        self._start = self._began = None
        self._speaking = False
        self._forget(bounds.end)
        return SpeechEnded(bounds, self._seconds)

    def _cut(self) -> list[SpeechEvent]:
        """Cut an utterance that is too long at the best place, and start the next one there."""
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
        ended = self._bounds(cut)
        self._floor = cut
        rest = [begin for begin, end in self._spans(cut, self._now) if end > cut]
        start = max(cut, rest[0]) if rest else cut
        self._begin(start)
        self._last, self._speaking = max(last, cut), speaking
        return [SpeechEnded(ended, self._seconds), SpeechStarted(start * WINDOW_SECONDS)]

    def _give_up(self) -> list[SpeechEvent]:
        """End a sound that has not become certain speech."""
        found = self._possible_speech(self._began or 0, self._now)
        self._began, self._speaking = None, False
        self._forget(self._now - FAINT_PAD)
        return found

    def _possible_speech(self, begin: int, end: int) -> list[SpeechEvent]:
        """Possible speech between two windows, if any."""
        probabilities = self._between(begin, end)
        spans = speech_spans(probabilities, len(probabilities) * WINDOW, FAINT_PROBABILITY, FAINT_SILENCE_PROBABILITY)
        speech = tuple((begin + a // WINDOW, begin + b // WINDOW) for a, b in spans)
        if not speech or not may_be_speech(self._between(speech[0][0], speech[-1][1]), self._now):
            return []
        start = max(self.kept_from, self._floor, speech[0][0] - FAINT_PAD)
        self._floor = min(end, speech[-1][1] + FAINT_PAD)
        bounds = UtteranceBounds(start, self._floor, speech, certain=False)
        return [PossibleSpeech(bounds, self._seconds)]

    def _bounds(self, end: int) -> UtteranceBounds:
        """Bounds of the current utterance up to a window."""
        start = self.kept_from
        return UtteranceBounds(start, end, tuple(self._spans(self._start or 0, end)) or ((start, end),), certain=True)

    def _spans(self, begin: int, end: int) -> list[tuple[int, int]]:
        """Spans of speech between two windows."""
        probabilities = self._between(begin, end)
        spans = speech_spans(probabilities, len(probabilities) * WINDOW)
        return [(begin + a // WINDOW, begin + b // WINDOW) for a, b in spans]

    def _between(self, begin: int, end: int) -> FloatArray:
        return np.array(self._since(begin)[: end - begin], dtype=np.float32)

    def _since(self, window: int) -> list[float]:
        kept = list(self._probabilities)
        return kept[max(0, window - self.kept_from) :]

    def _forget(self, before: int) -> None:
        """Drop the probabilities before a window."""
        before = max(before, self._floor) if self._start is None else before
        while self._probabilities and self.kept_from < before:
            self._probabilities.popleft()
            self._loudness.popleft()
