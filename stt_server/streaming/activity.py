"""Voice activity as audio comes: the Silero model with its memory kept, so that nothing is heard twice."""

from __future__ import annotations

from typing import Any

import numpy as np

from stt_server.audio.mono import FloatArray
from stt_server.audio.vad import WINDOW

_CONTEXT = 64
"""Samples before each window that Silero looks back at."""

_STATE = (1, 1, 128)
"""Shape of the two halves of its LSTM's memory."""


class VoiceActivity:
    """The probability of speech in each window of one stream.

    Costs about 2 ms of one core for each second of audio that comes in pieces of 0.1 s.
    """

    def __init__(self) -> None:
        # Here, for who only decodes should not wait a second for an inference engine to be imported.
        from faster_whisper.vad import get_vad_model

        self._session: Any = get_vad_model().session
        self._h = np.zeros(_STATE, dtype=np.float32)
        self._c = np.zeros(_STATE, dtype=np.float32)
        self._context = np.zeros(_CONTEXT, dtype=np.float32)

    def judge(self, samples: FloatArray) -> FloatArray:
        """Probabilities, 0 to 1, of the stream's next windows.

        Args:
            samples: a whole number of `WINDOW`.
        """
        count = len(samples) // WINDOW
        if not count:
            return np.zeros(0, dtype=np.float32)
        heard = np.concatenate([self._context, samples])
        windows = np.stack([heard[at * WINDOW : (at + 1) * WINDOW + _CONTEXT] for at in range(count)])
        found, self._h, self._c = self._session.run(None, {"input": windows, "h": self._h, "c": self._c})
        self._context = heard[-_CONTEXT:].copy()
        return np.asarray(found, dtype=np.float32).ravel()
