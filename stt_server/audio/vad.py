"""Voice activity: where in a recording somebody speaks, by the Silero model that faster-whisper ships."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np

from stt_server.audio.mono import FloatArray
from stt_server.errors import Abandoned

WINDOW = 512
"""Samples that Silero judges at a time: 32 ms."""

SPEECH_PROBABILITY = 0.5
"""Speech begins in a window of at least this probability, and ends where it falls under `SILENCE_PROBABILITY`."""

SILENCE_PROBABILITY = 0.35

_MIN_PAUSE_WINDOWS = 3
"""Shorter dips are inside words: stops, and the VAD's own doubts."""

CERTAIN_PROBABILITY, CERTAIN_WINDOWS = 0.7, 8
"""Somebody speaks for certain where so many windows, 0.26 s, are at least so probable.

Measured: each of 100 real utterances has 19 such windows at least. Full-scale white noise has none in 15 minutes,
plucked strings have 3, single bowed notes 5; a bowed melody can have 60, and counts as a voice here. A whisper and a
falsetto have none: they peak at 0.69 and 0.61.
"""

FAINT_PROBABILITY, FAINT_SILENCE_PROBABILITY = 0.2, 0.1
"""The same two thresholds for what may be speech: whispering is above the first for 1.4 s of 2.3 s."""

FORGET_WINDOWS = 31
"""After so much silence behind speech, 1 s, Silero forgets what it heard before.

Else it goes deaf to a hoarse voice, a whisper or a falsetto after a clear one, for as long as they last. Measured: of
39 clips joined in six orders, 15 such were lost with all its memory, and none with this. Once for each time that
somebody spoke: with its memory gone again and again, it takes some noise for speech.
"""

_STEP_WINDOWS = 16
"""Judged at a time, and after each it may forget: counted from the beginning, so that it makes no difference in which
pieces audio comes."""

_BLOCK = 640 * WINDOW
"""Samples of a recording judged at a time, 20 s."""

_CONTEXT_SAMPLES = 64
"""Before each window, that Silero looks back at."""

_STATE = (1, 1, 128)
"""Shape of the two halves of its memory."""

Detector = Callable[[FloatArray], FloatArray]
"""Samples at 16 kHz -> probability of speech in each `WINDOW` of them; the last one may be filled up with silence."""

Span = tuple[int, int]
"""First sample, and the one behind the last."""


class VoiceActivity:
    """The probability of speech in each window of one recording or stream, as it comes; nothing is heard twice.

    Costs about 1 ms of one core for each second of audio, and twice that where it comes in pieces of 0.1 s.
    """

    def __init__(self) -> None:
        self._session = _session()
        self._context = np.zeros(_CONTEXT_SAMPLES, dtype=np.float32)
        self._h = self._c = np.zeros(_STATE, dtype=np.float32)
        self._judged = 0
        """Windows so far."""
        self._silent = 0
        """Windows since the last that may be speech."""
        self._spoken = False
        """Somebody has spoken since the memory was empty."""

    def judge(self, samples: FloatArray) -> FloatArray:
        """Probabilities, 0 to 1, of the next windows.

        Args:
            samples: a whole number of `WINDOW`.
        """
        heard = np.concatenate([self._context, samples])
        self._context = heard[-_CONTEXT_SAMPLES:].copy()
        found = [np.zeros(0, dtype=np.float32)]
        at, count = 0, len(samples) // WINDOW
        while at < count:
            step = min(count - at, _STEP_WINDOWS - self._judged % _STEP_WINDOWS)
            found.append(self._judge_step(heard[at * WINDOW : (at + step) * WINDOW + _CONTEXT_SAMPLES]))
            at += step
        return np.concatenate(found)

    def _judge_step(self, heard: FloatArray) -> FloatArray:
        windows = np.lib.stride_tricks.sliding_window_view(heard, WINDOW + _CONTEXT_SAMPLES)[::WINDOW]
        inputs = {"input": np.ascontiguousarray(windows), "h": self._h, "c": self._c}
        output, self._h, self._c = self._session.run(None, inputs)
        probabilities = np.asarray(output, dtype=np.float32).ravel()
        self._remember(probabilities)
        return probabilities

    def _remember(self, probabilities: FloatArray) -> None:
        (voiced,) = np.nonzero(probabilities >= FAINT_SILENCE_PROBABILITY)
        self._silent = len(probabilities) - 1 - int(voiced[-1]) if len(voiced) else self._silent + len(probabilities)
        self._spoken = self._spoken or bool(np.any(probabilities >= SPEECH_PROBABILITY))
        self._judged += len(probabilities)
        if self._spoken and self._silent >= FORGET_WINDOWS and self._judged % _STEP_WINDOWS == 0:
            self._h = self._c = np.zeros(_STATE, dtype=np.float32)
            self._spoken = False


def _session() -> Any:
    """The one inference session of all."""
    # Read by onnxruntime when it is imported, which else reports its use to its makers and writes an id of this machine
    # into the home directory. For the C library alone: os.environ stays as it is.
    os.putenv("ORT_DISABLE_TELEMETRY", "1")
    # Here, for who only decodes should not wait a second for an inference engine to be imported.
    from faster_whisper.vad import get_vad_model

    return get_vad_model().session


def detect_speech(audio: FloatArray, wanted: Callable[[], bool] = lambda: True) -> FloatArray:
    """A `Detector`: Silero's probabilities.

    Args:
        wanted: whether somebody still waits for them; an hour takes some seconds.

    Raises:
        Abandoned: nobody does.
    """
    activity = VoiceActivity()
    found = []
    # In blocks, since what is judged is copied.
    for at in range(0, len(audio), _BLOCK):
        if not wanted():
            raise Abandoned("nobody waits for it any more")
        found.append(activity.judge(_whole_windows(audio[at : at + _BLOCK])))
    return np.concatenate(found) if found else np.zeros(0, dtype=np.float32)


def _whole_windows(audio: FloatArray) -> FloatArray:
    """With silence at its end that fills its last window."""
    return np.pad(audio, (0, -len(audio) % WINDOW))


def speech_spans(
    probabilities: FloatArray, samples: int, begins: float = SPEECH_PROBABILITY, ends: float = SILENCE_PROBABILITY
) -> list[Span]:
    """Stretches of speech in a recording of `samples` samples, in order, at least 96 ms apart.

    Speech begins and ends at different thresholds, as in Silero's own `get_speech_timestamps`, so that one doubtful
    window cuts no word in two.

    Args:
        begins: the probability that a first window has at least.
        ends: the probability under which speech is over.
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
