"""Checks of a device: every compute type loads, shortened windows give the same words, memory that ran out recovers."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from buildscripts.lib.bench.report import Accuracy, accuracy
from buildscripts.lib.gpu.memory import PeakMemory, UsedMib
from buildscripts.lib.load.closed_loop import Recording
from stt_server.audio import split
from stt_server.engine.health.failures import failure_of, kind_of
from stt_server.engine.loading import ModelLoadError
from stt_server.engine.types import ChunkJob, DecodeOptions, Recognizer, join_text

BATCH = 8
"""Chunks of a batch where the size is not the subject."""

Load = Callable[[str], Recognizer]
"""Loads the model with a compute type; raises ModelLoadError."""


@dataclass(frozen=True)
class ComputeType:
    """A compute type's load and first texts."""

    name: str
    error: str
    """Why it can't be used; empty if it can."""
    load_s: float = 0.0
    mib: float | None = None
    """Rise of the memory in use by loading; None if it can't be read."""
    accuracy: Accuracy | None = None


def check_compute_types(
    names: Sequence[str], load: Load, recordings: Sequence[Recording], used_mib: UsedMib, in_time: Callable[[], bool]
) -> list[ComputeType]:
    """Load the model with each compute type and transcribe the recordings.

    Args:
        in_time: whether there is time for another one.
    """
    found = []
    for name in names:
        if not in_time():
            break
        before = used_mib()
        began = time.perf_counter()
        try:
            recognizer = load(name)
            took, after = time.perf_counter() - began, used_mib()
            texts = transcribe(recognizer, recordings)
        except (ModelLoadError, RuntimeError) as error:
            found.append(ComputeType(name, " ".join(str(error).split())))
            continue
        rise = None if before is None or after is None else max(0.0, after - before)
        found.append(ComputeType(name, "", took, rise, accuracy(recordings, [texts], lambda language: True)))
        del recognizer  # frees the device for the next one
    return found


def jobs_of(recordings: Sequence[Recording], *, draft: bool = False) -> list[list[ChunkJob]]:
    """The chunks of each recording, with its language given."""
    return [
        [
            ChunkJob(chunk, DecodeOptions(language=recording.language), draft=draft)
            for chunk in split(recording.samples, vad_filter=True)
        ]
        for recording in recordings
    ]


def transcribe(recognizer: Recognizer, recordings: Sequence[Recording]) -> list[str]:
    """Texts of the recordings, recognized in batches of one group."""
    jobs = jobs_of(recordings)
    texts: dict[int, str] = {}
    groups: dict[object, list[ChunkJob]] = {}
    for own in jobs:
        for job in own:
            groups.setdefault(recognizer.group_of(job), []).append(job)
    for members in groups.values():
        for start in range(0, len(members), BATCH):
            batch = members[start : start + BATCH]
            texts.update((id(job), one.text) for job, one in zip(batch, recognizer.recognize_batch(batch), strict=True))
    return [join_text(texts[id(job)] for job in own) for own in jobs]


@dataclass(frozen=True)
class Recovery:
    """What happened when the device had no memory left, and after that."""

    failure: str
    """Kind of the failure (`health.failures.kind_of`), or `none`."""
    recovered: bool
    """Whether the same batch gave the same texts once memory was free again."""
    peak_mib: float | None

    @property
    def passed(self) -> bool:
        return self.failure == "out_of_memory" and self.recovered


def check_recovery(
    recognizer: Recognizer,
    jobs: Sequence[ChunkJob],
    fill: Callable[[], AbstractContextManager[None]],
    used_mib: UsedMib,
) -> Recovery:
    """Recognize a batch, again without memory, and again with it.

    Args:
        jobs: of one group; large enough to need more memory than the first batch left allocated.
        fill: takes nearly all memory of the device during its block.
    """
    failure = "none"
    small = jobs[:1]
    expected = [hypothesis.text for hypothesis in recognizer.recognize_batch(small)]
    with PeakMemory(used_mib) as peak, fill():
        try:
            recognizer.recognize_batch(jobs)
        except Exception as error:
            failure = kind_of(failure_of(error))
    try:
        recovered = [hypothesis.text for hypothesis in recognizer.recognize_batch(small)] == expected
    except RuntimeError:
        recovered = False
    return Recovery(failure, recovered, peak.mib)
