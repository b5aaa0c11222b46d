"""A real service with a scripted model, as a process: `python -m stt_server.testing.scripted_service primary`.

STT_SCRIPT names a JSON file with the fields of `Script`; it is read anew for each inference, so that the model's
mind can be changed while the service runs.
"""

from __future__ import annotations

import json
import math
import os
import sys
import threading
from collections.abc import Callable, Hashable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, cast

from gateway.embedded import make_gateway
from stt_server.config import Role, Settings
from stt_server.engine.types import ChunkJob, Hypothesis, ModelInfo, Segment
from stt_server.lifecycle.run import run

LANGUAGES = ("de", "en", "fr")
UNSURE = 0.1
Failure = Literal["", "engine", "out_of_memory", "bug", "cuda", "cublas"]


@dataclass(frozen=True)
class Script:
    """What the model does."""

    seconds: float = 0.0
    """Of one chunk's inference."""
    confidence: float = 0.9
    """exp(mean token log-probability)."""
    unsure_of: str = ""
    """A word: with it in the request's prompt, the confidence is `UNSURE`."""
    text: str = "the quick brown fox jumps over the lazy dog"
    """Said of each chunk, with the request's prompt behind it: an answer tells whose it is."""
    error: Failure = ""
    """What it raises instead, in CTranslate2's words: `cuda` and `cublas` are those of a poisoned context."""
    spares_silence: bool = False
    """It raises that for speech alone."""
    load_seconds: float = 0.0
    """How long the model takes to load."""

    def write(self, path: Path) -> None:
        """In one step, so that no inference reads half of it."""
        scratch = path.with_suffix(".new")
        scratch.write_text(json.dumps(asdict(self)))
        scratch.replace(path)


class ScriptedModel:
    """A `Recognizer` that does as its script says."""

    def __init__(self, name: str, script: Path) -> None:
        self.info = ModelInfo(name, "cpu", "float32", LANGUAGES)
        self._script = script

    def group_of(self, job: ChunkJob) -> Hashable:
        return "all"

    def batch_limit(self, group: Hashable) -> int:
        return 100

    def recognize_batch(
        self, jobs: Sequence[ChunkJob], more: Callable[[], Sequence[ChunkJob]] = tuple
    ) -> list[Hypothesis]:
        script = Script(**json.loads(self._script.read_text()))
        threading.Event().wait(script.seconds * len(jobs))
        spared = script.spares_silence and not any(job.chunk.samples.any() for job in jobs)
        if script.error and not spared:
            raise _error(script.error)
        return [_hypothesis(job, script) for job in jobs]


def _error(kind: str) -> Exception:
    texts = {
        "engine": "Invalid shape at /some/path",
        "out_of_memory": "CUDA failed with error out of memory",
        "cuda": "CUDA failed with error an illegal memory access was encountered",
        "cublas": "cuBLAS failed with status CUBLAS_STATUS_EXECUTION_FAILED",
    }
    return RuntimeError(texts[kind]) if kind in texts else ValueError("a bug at /some/path")


def _hypothesis(job: ChunkJob, script: Script) -> Hypothesis:
    unsure = bool(script.unsure_of) and script.unsure_of in job.options.prompt
    logprob = math.log(UNSURE if unsure else script.confidence)
    text = " ".join(filter(None, [script.text, job.options.prompt]))
    chunk = job.chunk
    segment = Segment(chunk.start, chunk.start + len(chunk.samples) / 16000, f" {text}", logprob, 0.01, 1.1)
    return Hypothesis(
        segments=(segment,) if text else (),
        language=job.options.language or "en",
        language_probability=None if job.options.language else 0.97,
        token_logprobs=(logprob,) * len(text.split()),
        looped=False,
    )


def main() -> int:
    script = Path(os.environ["STT_SCRIPT"])

    def load(settings: Settings) -> ScriptedModel:
        threading.Event().wait(Script(**json.loads(script.read_text())).load_seconds)
        return ScriptedModel(settings.model_name, script)

    service = sys.argv.pop(1)
    return run(cast(Role, service), make_gateway, load)


if __name__ == "__main__":
    sys.exit(main())
