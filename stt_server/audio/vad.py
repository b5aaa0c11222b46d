"""Voice activity: where in a recording somebody speaks, by the Silero model that faster-whisper ships."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from stt_server.audio.mono import FloatArray

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

_BLOCK_WINDOWS = 2_000
"""Judged at a time, 64 s: the model's activations take over 20 times the memory of the samples."""

_LEAD_IN_WINDOWS = 128
"""Heard again before each block, 4 s: the model remembers, and begins each block with nothing to remember."""

Detector = Callable[[FloatArray], FloatArray]
"""Samples at 16 kHz -> probability of speech in each `WINDOW` of them; the last one may be filled up with silence."""

Span = tuple[int, int]
"""First sample, and the one behind the last."""


def detect_speech(audio: FloatArray) -> FloatArray:
    """A `Detector`: Silero's probabilities. Costs about 3 ms a second of one core for each second of audio."""
    # Here, for who only decodes should not wait a second for an inference engine to be imported.
    from faster_whisper.vad import get_vad_model

    model = get_vad_model()
    windows = -(-len(audio) // WINDOW)
    blocks = []
    for first in range(0, windows, _BLOCK_WINDOWS):
        begin = max(0, first - _LEAD_IN_WINDOWS)
        end = min(windows, first + _BLOCK_WINDOWS)
        # A copy with a window to spare: the model wants whole windows, and blanks the end of its argument.
        block = np.zeros((end - begin + 1) * WINDOW, dtype=np.float32)
        heard = audio[begin * WINDOW : end * WINDOW]
        block[: len(heard)] = heard
        blocks.append(np.asarray(model(block), dtype=np.float32).ravel()[first - begin : end - begin])
    return np.concatenate(blocks) if blocks else np.zeros(0, dtype=np.float32)


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
