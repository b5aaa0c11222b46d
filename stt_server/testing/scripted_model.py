"""A scripted model: the one part that tests replace. All else is the production wiring."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field

from stt_server.engine.types import ChunkJob, DecodeOptions, Hypothesis, ModelInfo, Segment


@dataclass
class Script:
    """What the model says of every chunk."""

    text: str = " the quick brown fox jumps over the lazy dog"
    confidence: float = 0.9
    """exp(mean token log-probability)."""
    language: str = "en"
    language_probability: float = 0.97
    looped: bool = False
    suppressed: str | None = None
    error: Exception | None = None
    errors_left: int = -1
    """How often the error is raised; -1: for ever."""


@dataclass
class ScriptedRecognizer:
    """Answers from a script, and can be held in the middle of an inference."""

    script: Script = field(default_factory=Script)
    name: str = "scripted-small"
    languages: Sequence[str] = ("de", "en", "fr")
    seen: list[DecodeOptions] = field(default_factory=list)
    by_start: Callable[[float], Script] | None = None
    """Another script for each chunk, by its start in seconds."""
    by_job: Callable[[ChunkJob], Script] | None = None
    """Another script for each job."""
    jobs: list[ChunkJob] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.info = ModelInfo(self.name, "cpu", "float32", tuple(self.languages))
        self.open = threading.Event()
        """Cleared, inferences stand still until it is set."""
        self.open.set()
        self.entered = threading.Semaphore(0)
        """Released once for each inference that begins."""
        self.running = 0
        self.most_running = 0
        self._lock = threading.Lock()

    def group_of(self, job: ChunkJob) -> Hashable:
        return "all"

    def batch_limit(self, group: Hashable) -> int:
        return 100

    def recognize_batch(
        self, jobs: Sequence[ChunkJob], more: Callable[[], Sequence[ChunkJob]] = tuple
    ) -> list[Hypothesis]:
        with self._lock:
            self.running += 1
            self.most_running = max(self.most_running, self.running)
            self.seen.extend(job.options for job in jobs)
            self.jobs.extend(jobs)
        self.entered.release()
        try:
            if not self.open.wait(timeout=30):
                raise AssertionError("nobody opened the scripted model")
            return [self._hypothesis(job) for job in jobs]
        finally:
            with self._lock:
                self.running -= 1

    def _hypothesis(self, job: ChunkJob) -> Hypothesis:
        chunk, options = job.chunk, job.options
        script = self.by_start(chunk.start) if self.by_start else self.script
        script = self.by_job(job) if self.by_job else script
        if script.error is not None and script.errors_left != 0:
            script.errors_left -= 1
            raise script.error
        forced = options.language is not None or not self.info.multilingual
        logprob = math.log(script.confidence)
        seconds = len(chunk.samples) / 16000
        segment = Segment(chunk.start, chunk.start + seconds, script.text, logprob, 0.01, 1.1)
        return Hypothesis(
            segments=(segment,) if script.text and not script.suppressed else (),
            language=options.language or script.language,
            language_probability=None if forced else script.language_probability,
            token_logprobs=() if script.suppressed else (logprob,) * len(script.text.split()),
            looped=script.looped,
            suppressed=script.suppressed,
        )
