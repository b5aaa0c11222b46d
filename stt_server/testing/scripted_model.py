"""Scripted model: replaces the recognizer, and nothing else of the production wiring."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable, Hashable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from stt_server.engine.types import ChunkJob, DecodeOptions, Hypothesis, ModelInfo, Segment

UNSURE_CONFIDENCE = 0.1
HOLD_TIMEOUT_S = 30.0

Failure = Literal["", "engine", "out_of_memory", "bug", "cuda", "cublas"]

_FAILURE_TEXTS = {
    "engine": "Invalid shape at /some/path",
    "out_of_memory": "CUDA failed with error out of memory",
    "cuda": "CUDA failed with error an illegal memory access was encountered",
    "cublas": "cuBLAS failed with status CUBLAS_STATUS_EXECUTION_FAILED",
}
"""Messages of CTranslate2; `cuda` and `cublas` are those of a CUDA context that is lost."""


@dataclass
class Script:
    """Result of every inference."""

    text: str = "the quick brown fox jumps over the lazy dog"
    confidence: float = 0.9
    """exp(mean token log-probability)."""
    language: str = "en"
    """Used unless the request names a language."""
    language_probability: float = 0.97
    looped: bool = False
    suppressed: str | None = None
    redecoded_seconds: float = 0.0
    error: Exception | Failure = ""
    """Raised instead of a result: an exception, or the kind of one that CTranslate2 would raise; "": none."""
    errors_left: int = -1
    """Number of times to raise `error`; -1: no limit."""
    spares_silence: bool = False
    """Raise `error` only for chunks that are not all zeros."""
    unsure_of: str = ""
    """If the request's prompt contains this, the confidence is `UNSURE_CONFIDENCE`."""
    seconds: float = 0.0
    """Inference time of a chunk."""
    load_seconds: float = 0.0
    """Time to load the model. Scripted service only."""

    def write(self, path: Path) -> None:
        """Replace `path` atomically, as JSON."""
        scratch = path.with_suffix(".new")
        scratch.write_text(json.dumps(asdict(self)))
        scratch.replace(path)

    @classmethod
    def read(cls, path: Path) -> Script:
        return cls(**json.loads(path.read_text()))

    def error_for(self, job: ChunkJob) -> Exception | None:
        """Error to raise for a chunk; counts `errors_left` down."""
        if not self.error or self.errors_left == 0 or (self.spares_silence and not job.chunk.samples.any()):
            return None
        self.errors_left -= 1
        if isinstance(self.error, Exception):
            return self.error
        if self.error in _FAILURE_TEXTS:
            return RuntimeError(_FAILURE_TEXTS[self.error])
        return ValueError("a bug at /some/path")


@dataclass
class ScriptedModel:
    """A `Recognizer` that follows a script, records its input, and can be held in the middle of an inference."""

    script: Script = field(default_factory=Script)
    name: str = "scripted-small"
    languages: Sequence[str] = ("de", "en", "fr")
    by_start: Callable[[float], Script] | None = None
    """Script for a chunk, by its start in seconds."""
    by_job: Callable[[ChunkJob], Script] | None = None
    """Script for a job; takes precedence over `by_start`."""
    path: Path | None = None
    """JSON file with the script, read before each inference. Nothing is recorded in `jobs` and `seen` then."""
    echo_prompt: bool = False
    """Append the request's prompt and hotwords to the text, so that a response can be matched to its request."""
    jobs: list[ChunkJob] = field(default_factory=list)
    """Jobs received so far."""
    seen: list[DecodeOptions] = field(default_factory=list)
    """Their options."""

    def __post_init__(self) -> None:
        self.info = ModelInfo(self.name, "cpu", "float32", tuple(self.languages))
        self.open = threading.Event()
        """While cleared, inferences wait for it."""
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
        self._begin(jobs)
        try:
            if not self.open.wait(timeout=HOLD_TIMEOUT_S):
                raise AssertionError(f"the scripted model was held for more than {HOLD_TIMEOUT_S:.0f} s")
            return [self._hypothesis(job) for job in jobs]
        finally:
            with self._lock:
                self.running -= 1

    def _begin(self, jobs: Sequence[ChunkJob]) -> None:
        with self._lock:
            self.running += 1
            self.most_running = max(self.most_running, self.running)
            if self.path is None:
                self.seen.extend(job.options for job in jobs)
                self.jobs.extend(jobs)
            else:
                self.script = Script.read(self.path)
        self.entered.release()

    def _script_of(self, job: ChunkJob) -> Script:
        if self.by_job is not None:
            return self.by_job(job)
        return self.by_start(job.chunk.start) if self.by_start is not None else self.script

    def _hypothesis(self, job: ChunkJob) -> Hypothesis:
        chunk, options, script = job.chunk, job.options, self._script_of(job)
        if script.seconds:
            threading.Event().wait(script.seconds)
        if (error := script.error_for(job)) is not None:
            raise error
        echo = (options.prompt, *options.hotwords) if self.echo_prompt else ()
        text = " ".join(filter(None, (script.text.strip(), *echo)))
        unsure = bool(script.unsure_of) and script.unsure_of in options.prompt
        logprob = math.log(UNSURE_CONFIDENCE if unsure else script.confidence)
        forced = options.language is not None or not self.info.multilingual
        forced = forced or job.expected_language == script.language
        segment = Segment(chunk.start, chunk.start + len(chunk.samples) / 16000, f" {text}", logprob, 0.01, 1.1)
        return Hypothesis(
            segments=(segment,) if text and not script.suppressed else (),
            language=options.language or script.language,
            language_probability=None if forced else script.language_probability,
            token_logprobs=() if script.suppressed else (logprob,) * len(text.split()),
            looped=script.looped,
            suppressed=script.suppressed,
            redecoded_seconds=script.redecoded_seconds,
        )
