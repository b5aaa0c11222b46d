"""What a caller asks for, how far it got, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

from stt_server.audio import AudioFormat, Chunk
from stt_server.engine.types import DecodeOptions, Hypothesis, Segment
from stt_server.errors import EngineError
from stt_server.routing import Decision, Policy, Reason, Thresholds

if TYPE_CHECKING:
    # The name of the type alone: streams, which know jobs, know nothing of the protocol.
    from protos.stt.v1.errors import FallbackCode


@dataclass(frozen=True)
class Job:
    """What a caller asks for."""

    audio: bytes = field(repr=False)
    """Empty for an utterance of a live stream, which is there as a chunk."""
    format: AudioFormat
    options: DecodeOptions
    request_id: str
    policy: Policy = "auto"
    deadline: float | None = None
    """On the pipeline's clock, in seconds; None: the caller waits as long as it takes."""


@dataclass
class Progress:
    """How far a request got; filled in on the way, so that an error can tell as much as a success. Seconds."""

    queue_wait: float | None = None
    primary_infer: float | None = None
    fallback_infer: float | None = None
    """On the primary: asking the fallback, with the way there and its queue. On the fallback: its inference."""
    audio_seconds: float | None = None
    fallback_result: Literal["used", "skipped", "failed"] | None = None
    """None: never got as far as a routing decision."""
    fallback_error: str = ""
    reasons: tuple[Reason, ...] = ()
    suppressed: tuple[str, ...] = ()
    """Why texts of chunks were dropped as invented, one for each."""


@dataclass(frozen=True)
class Heard:
    """What this service's own model made of a recording."""

    chunks: tuple[Chunk, ...] = ()
    hypotheses: tuple[Hypothesis, ...] = ()
    """One for each chunk; none if the model failed, or was not asked."""
    failure: EngineError | None = None
    asked: bool = True
    """False where only the fallback's answer is wanted."""


@dataclass(frozen=True)
class Answer:
    """What one model made of a recording."""

    model: str
    segments: tuple[Segment, ...]
    text: str
    language: str
    language_probability: float | None
    confidence: float | None
    """exp(mean token log-probability), 0 to 1; None for an empty text."""
    segment_models: tuple[str, ...]
    """Whose text each segment is."""


@dataclass(frozen=True)
class Transcript:
    """The result, and how it was come by."""

    answer: Answer
    audio_seconds: float
    decision: Decision
    language_check_applicable: bool
    fallback_used: bool = False
    fallback_error: str = ""
    primary_confidence: float | None = None
    fallback_confidence: float | None = None


class FallbackError(Exception):
    """The fallback did not answer. `code` goes into `fallback_error`; `protos.stt.v1.errors.FALLBACK_CODES` has all."""

    def __init__(self, code: FallbackCode) -> None:
        super().__init__(code)
        self.code = code


class Fallback(Protocol):
    """The larger model, elsewhere."""

    async def transcribe(self, job: Job, timeout_s: float) -> Answer:
        """Raises: FallbackError."""
        ...


@dataclass(frozen=True)
class Rules:
    """What configuration says of requests."""

    max_audio_seconds: float
    vad_filter: bool = True
    thresholds: Thresholds | None = None
    """None: never routes, as the fallback itself."""
    fallback_timeout_s: float = 60.0
    fallback_on_error: Literal["fail", "degrade"] = "fail"
    final_choice: Literal["fallback", "best"] = "fallback"
