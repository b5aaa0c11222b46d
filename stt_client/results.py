"""What a call returns: plain dataclasses, times in seconds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Word:
    start: float
    """Seconds from the start of the recording."""
    end: float
    text: str
    probability: float
    """0 to 1."""


@dataclass(frozen=True)
class Segment:
    start: float
    """Seconds from the start of the recording."""
    end: float
    text: str
    avg_logprob: float
    """Natural log, mean over the text's tokens."""
    no_speech_prob: float
    compression_ratio: float
    model: str
    """The model whose text this is."""
    words: tuple[Word, ...] = ()
    """Only if asked for."""


@dataclass(frozen=True)
class Routing:
    fallback_used: bool
    final_model: str
    confidence_below: bool
    language_check_applicable: bool
    reasons: tuple[str, ...] = ()
    """`low_logprob`, `low_language_probability`, `few_words`, `repetition`, `primary_error`, `requested`."""
    primary_confidence: float | None = None
    """exp(mean token log-probability), 0 to 1; None where that model gave no text."""
    fallback_confidence: float | None = None
    fallback_error: str = ""
    """Why the fallback was wanted and did not answer; empty otherwise."""


@dataclass(frozen=True)
class Timings:
    """Seconds."""

    queue_wait: float
    primary_infer: float
    fallback_infer: float
    total: float


@dataclass(frozen=True)
class Transcript:
    """The answer to one `Transcribe`."""

    request_id: str
    text: str
    language: str
    language_probability: float | None
    """0 to 1; None if the caller forced the language."""
    audio_duration: float
    """Seconds."""
    segments: tuple[Segment, ...]
    routing: Routing
    timings: Timings
    metadata: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)
    """Trailing metadata of the call: lower-case names, such as `x-final-model`."""

    def as_dict(self) -> dict[str, Any]:
        """As `POST /v1/transcribe` returns it in JSON."""
        from stt_client.convert import transcript_json

        return transcript_json(self)


@dataclass(frozen=True)
class Limits:
    """What a service accepts."""

    max_upload_bytes: int
    """Bytes of audio in one request."""
    max_audio_duration: float
    """Seconds, once decoded."""
    max_concurrency: int
    """Inferences at a time."""
    max_queue: int
    """Requests that may wait for one."""


@dataclass(frozen=True)
class Status:
    """The answer to `GetStatus`."""

    service: str
    """`primary` or `fallback`."""
    model: str
    device: str
    compute_type: str
    server_commit: str
    uptime: float
    """Seconds."""
    limits: Limits
    snapshot: dict[str, Any]
    """Counts and latency quantiles, as `GET /v1/metrics` shows them."""


@dataclass(frozen=True)
class Metrics:
    """The answer to `GetMetrics`."""

    exposition: str
    """What a scrape of `/metrics` returns."""
    content_type: str
