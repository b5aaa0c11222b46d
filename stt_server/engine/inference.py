"""What a worker's thread does: recognize a batch, and, where that fails, find out for whom."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from stt_server.audio.formats import SAMPLE_RATE
from stt_server.engine.health.failures import failure_of, lost
from stt_server.engine.types import ChunkJob, DecodeOptions, Hypothesis, Recognizer, Samples
from stt_server.errors import Abandoned, EngineLost, SttError


def recognize_each(
    recognizer: Recognizer, jobs: list[ChunkJob], more: Callable[[], list[ChunkJob]]
) -> list[Hypothesis | SttError]:
    """A hypothesis or a failure for each job, and for each that joined. A batch that fails is tried chunk by chunk, so
    that none pays for another; not where the model is lost, and each would fail anew."""

    def joined() -> list[ChunkJob]:
        late = more()
        jobs.extend(late)
        return late

    try:
        return list(recognizer.recognize_batch(list(jobs), joined))
    except Abandoned as left:
        return [left] * len(jobs)
    except Exception as error:
        failure = failure_of(error)
        if len(jobs) == 1 or isinstance(failure, EngineLost):
            return [failure] * len(jobs)
    return [outcome for job in jobs for outcome in recognize_each(recognizer, [job], list)]


@dataclass(frozen=True)
class _Silence:
    """A chunk in which nobody speaks."""

    samples: Samples = field(default_factory=lambda: np.zeros(SAMPLE_RATE, dtype=np.float32), repr=False)
    start: float = 0.0
    speech: tuple[tuple[float, float], ...] = ()
    speech_certain: bool = False


def probe(recognizer: Recognizer) -> EngineLost | None:
    """Recognizes a second of silence, as the warm-up did, and so proves that the model works; else why it doesn't."""
    job = ChunkJob(_Silence(), DecodeOptions(language=recognizer.info.languages[0]), draft=True)
    try:
        recognizer.recognize_batch([job])
    except Exception as error:
        return lost(error)
    return None
