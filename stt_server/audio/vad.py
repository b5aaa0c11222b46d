"""Voice activity detection with the Silero model that faster-whisper ships."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from stt_server.audio import silero
from stt_server.audio.mono import FloatArray
from stt_server.errors import Abandoned

WINDOW = 512
"""Samples in one of Silero's windows: 32 ms."""

SPEECH_PROBABILITY = 0.5
"""Speech begins in a window with at least this probability and ends where it falls below `SILENCE_PROBABILITY`."""

SILENCE_PROBABILITY = 0.35

_MIN_PAUSE_WINDOWS = 3
"""Shorter dips are inside words: plosives, and uncertainty of the VAD."""

CERTAIN_PROBABILITY, CERTAIN_WINDOWS = 0.7, 8
"""Speech is certain if at least this many windows (8 are 0.26 s) have at least this probability.

Measured: each of 100 real utterances has at least 19 such windows. Full-scale white noise has none in 15 minutes,
plucked strings 3, single bowed notes 5; a bowed melody can have 60 and counts as a voice. A whisper and a falsetto have
none: their maxima are 0.69 and 0.61.
"""

FAINT_PROBABILITY, FAINT_SILENCE_PROBABILITY = 0.2, 0.1
"""The start and end thresholds for possible speech. Whispering is above the first for 1.4 s of 2.3 s."""

RESET_WINDOWS = 31
"""Silence after speech, 1 s, after which Silero's state is reset.

Otherwise it misses a hoarse voice, a whisper or a falsetto after a clear voice, however long they last. Measured: of 39
clips joined in six orders, 15 such were missed without the reset, and none with it. The state is reset once after each
stretch of speech: after repeated resets Silero takes some noise for speech.
"""

_STEP_WINDOWS = 16
"""Windows evaluated at a time. The state may be reset after each step. Steps are counted from the beginning, so that
the result doesn't depend on how the audio is cut into pieces."""

_LEAD_IN_SILENT, _LEAD_IN_REPEATED = 2, 8
"""Windows of the lead-in: silence, then the first window of the audio itself, back and forth.

Silero detects little in its first windows, and so misses a short word that a recording begins with. The first step is
therefore also evaluated after a lead-in, and the higher probabilities count. After silence alone Silero would take the
start of a tone for speech; after the repetition, that start is over.
Measured by `buildscripts/bench tight` on the telephone prompts that it names: of 288 clips of 0.1 to 0.6 s, some
of them beeps, 243 are detected, 247 between silence, and 242 and 251 in live streams.
"""

_INAUDIBLE = 1e-10
"""Samples below it, -200 dB, count as zero. Their products in the network would be denormal numbers, with which a
window took 50 times as long: 400 s for an hour of samples of 1e-38."""

_BLOCK = 640 * WINDOW
"""Samples of a recording evaluated at a time, 20 s."""

_CONTEXT_SAMPLES = 64
"""Samples before each window that Silero takes as context."""

_NO_CONTEXT = np.zeros(_CONTEXT_SAMPLES, dtype=np.float32)

_State = tuple[FloatArray, FloatArray]
"""Silero's state, each array of shape (1, 1, 128)."""

_NO_STATE: _State = (np.zeros((1, 1, 128), dtype=np.float32), np.zeros((1, 1, 128), dtype=np.float32))

Detector = Callable[[FloatArray], FloatArray]
"""Samples at 16 kHz -> probability of speech in each `WINDOW` of them; the last window may be padded with silence."""

Span = tuple[int, int]
"""First sample and the one after the last."""


class VoiceActivity:
    """Probabilities of speech in the windows of one recording or stream, incrementally.

    `buildscripts/bench profile` prints what it costs for each second of audio; docs/engine.md has a measurement.
    """

    def __init__(self) -> None:
        self._session = silero.session()
        self._context = _NO_CONTEXT
        self._state = self._state_after_lead_in = _NO_STATE
        self._evaluated = 0
        """Number of windows so far."""
        self._silent = 0
        """Windows since the last one above `FAINT_SILENCE_PROBABILITY`."""
        self._spoken = False
        """Whether there was speech since the last reset."""

    def judge(self, samples: FloatArray) -> FloatArray:
        """Probabilities, 0 to 1, of the next windows.

        Args:
            samples: a whole number of windows.
        """
        if not len(samples):
            return np.zeros(0, dtype=np.float32)
        samples = samples.copy()
        samples[np.abs(samples) < _INAUDIBLE] = 0
        windows = _with_context(samples, self._context)
        self._context = samples[-_CONTEXT_SAMPLES:].copy()
        found = []
        at = 0
        while at < len(windows):
            step = min(len(windows) - at, _STEP_WINDOWS - self._evaluated % _STEP_WINDOWS)
            found.append(self._evaluate_step(windows[at : at + step]))
            at += step
        return np.concatenate(found)

    def _evaluate_step(self, windows: FloatArray) -> FloatArray:
        probabilities, self._state = self._run(windows, self._state)
        if self._evaluated < _STEP_WINDOWS:
            probabilities = np.maximum(probabilities, self._after_lead_in(windows))
        self._update_state(probabilities)
        return probabilities

    def _after_lead_in(self, windows: FloatArray) -> FloatArray:
        """Probabilities of windows of the first step, as if the lead-in came before the recording."""
        if not self._evaluated:
            first = windows[0, _CONTEXT_SAMPLES:]
            silence = np.zeros(_LEAD_IN_SILENT * WINDOW, dtype=np.float32)
            lead_in = np.concatenate([silence, *[first, first[::-1]] * (_LEAD_IN_REPEATED // 2)])
            _, self._state_after_lead_in = self._run(_with_context(lead_in, _NO_CONTEXT), _NO_STATE)
            windows = windows.copy()
            windows[0, :_CONTEXT_SAMPLES] = lead_in[-_CONTEXT_SAMPLES:]
        probabilities, self._state_after_lead_in = self._run(windows, self._state_after_lead_in)
        return probabilities

    def _run(self, windows: FloatArray, state: _State) -> tuple[FloatArray, _State]:
        """Probabilities of windows with their context, and the state after them."""
        probabilities, h, c = self._session.run(None, {"input": windows, "h": state[0], "c": state[1]})
        return np.asarray(probabilities, dtype=np.float32), (h, c)

    def _update_state(self, probabilities: FloatArray) -> None:
        (voiced,) = np.nonzero(probabilities >= FAINT_SILENCE_PROBABILITY)
        self._silent = len(probabilities) - 1 - int(voiced[-1]) if len(voiced) else self._silent + len(probabilities)
        self._spoken = self._spoken or bool(np.any(probabilities >= SPEECH_PROBABILITY))
        self._evaluated += len(probabilities)
        if self._spoken and self._silent >= RESET_WINDOWS and self._evaluated % _STEP_WINDOWS == 0:
            self._state = _NO_STATE
            self._spoken = False


def _with_context(samples: FloatArray, context: FloatArray) -> FloatArray:
    """Each window of `samples` after the `_CONTEXT_SAMPLES` before it: first `context`, then the previous window's."""
    rows = samples.reshape(-1, WINDOW)
    contexts = np.concatenate([context[np.newaxis], rows[:-1, -_CONTEXT_SAMPLES:]])
    return np.concatenate([contexts, rows], axis=1)


def detect_speech(audio: FloatArray, wanted: Callable[[], bool] = lambda: True) -> FloatArray:
    """Silero's probabilities for a whole recording; a `Detector`.

    Args:
        wanted: whether the caller is still waiting; an hour of audio takes seconds.

    Raises:
        Abandoned: the caller isn't waiting any more.
    """
    activity = VoiceActivity()
    found = []
    # In blocks, because `judge` copies its samples.
    for at in range(0, len(audio), _BLOCK):
        if not wanted():
            raise Abandoned("no caller is waiting for the result")
        found.append(activity.judge(_whole_windows(audio[at : at + _BLOCK])))
    return np.concatenate(found) if found else np.zeros(0, dtype=np.float32)


def _whole_windows(audio: FloatArray) -> FloatArray:
    """Pad with silence to a whole number of windows."""
    return np.pad(audio, (0, -len(audio) % WINDOW))


def speech_spans(
    probabilities: FloatArray, samples: int, begins: float = SPEECH_PROBABILITY, ends: float = SILENCE_PROBABILITY
) -> list[Span]:
    """Spans of speech in a recording of `samples` samples, in order, at least 96 ms apart.

    The thresholds for begin and end differ, as in Silero's `get_speech_timestamps`, so that a single window of low
    probability doesn't split a word.

    Args:
        begins: lowest probability of a first window.
        ends: probability below which speech ends.
    """
    spans: list[list[int]] = []  # in windows
    speaking = False
    for index, probability in enumerate(probabilities):
        if speaking:
            speaking = bool(probability >= ends)
        elif probability >= begins:
            speaking = True
            if not spans or index - spans[-1][1] >= _MIN_PAUSE_WINDOWS:
                spans.append([index, index])
        if speaking:
            spans[-1][1] = index + 1
    return [(first * WINDOW, min(end * WINDOW, samples)) for first, end in spans]
