"""Recordings of several chunks, and a scripted model that stops at one of them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from stt_server.testing.paths import SPEECH
from stt_server.testing.scripted_model import Script
from tests.support.speech import samples_of, silence, wav_of

CHUNK_SECONDS = 7.9
"""Of a clip with its pause in `recording`."""

ONE_BY_ONE: dict[str, Any] = {"MAX_CONCURRENCY": 1, "MAX_BATCH_SIZE": 1}


def recording(chunks: int) -> bytes:
    """So many clips, each followed by a pause too long to be part of a chunk."""
    return wav_of(np.concatenate([samples_of(SPEECH), silence(5.0)] * chunks))


def number_of(start: float) -> int:
    return round(start / CHUNK_SECONDS)


class HeldChunks:
    """Scripts by the number of a chunk, one of which waits until it is released."""

    def __init__(self, held: int, script: Callable[[int], Script] = lambda _: Script()) -> None:
        self._held = held
        self._script = script
        self.released = threading.Event()

    def __call__(self, start: float) -> Script:
        if number_of(start) == self._held:
            assert self.released.wait(20)
        return self._script(number_of(start))
