"""Work that runs in a worker's thread: recognize a batch, find out which chunk failed, probe the model."""

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
    """A hypothesis or an error for each job, including those that `more` added while the batch ran.

    If a batch fails, its jobs are retried one by one, so that one bad chunk doesn't fail the others; not if the model
    is lost, since each would fail again.
    """

    def join() -> list[ChunkJob]:
        joined = more()
        jobs.extend(joined)
        return joined

    try:
        hypotheses = recognizer.recognize_batch(list(jobs), join)
    except Abandoned as abandoned:
        return [abandoned] * len(jobs)
    except Exception as error:
        failure = failure_of(error)
        if len(jobs) == 1 or isinstance(failure, EngineLost):
            return [failure] * len(jobs)
    else:
        if len(hypotheses) == len(jobs):
            return [*hypotheses]
        return [failure_of(ValueError(f"{len(hypotheses)} hypotheses for {len(jobs)} jobs"))] * len(jobs)
    return [outcome for job in jobs for outcome in recognize_each(recognizer, [job], list)]


@dataclass(frozen=True)
class _Silence:
    """A chunk of one second of silence."""

    samples: Samples = field(default_factory=lambda: np.zeros(SAMPLE_RATE, dtype=np.float32), repr=False)
    start: float = 0.0
    speech: tuple[tuple[float, float], ...] = ()
    speech_certain: bool = False


def probe(recognizer: Recognizer) -> EngineLost | None:
    """Recognize a second of silence, as the warm-up did; None if that works, else the error that it failed with."""
    job = ChunkJob(_Silence(), DecodeOptions(language=recognizer.info.languages[0]), draft=True)
    try:
        recognizer.recognize_batch([job])
    except Exception as error:
        return lost(error)
    return None
