"""Results of unary calls: plain dataclasses, times in seconds. `as_dict` gives the JSON of the REST interface."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Word:
    """One word of a segment, with `word_timestamps` only."""

    start: float
    """Seconds from the start of the recording."""
    end: float
    text: str
    probability: float
    """0 to 1."""


@dataclass(frozen=True)
class Segment:
    """A stretch of speech, usually a sentence."""

    start: float
    """Seconds from the start of the recording."""
    end: float
    text: str
    avg_logprob: float
    """Natural log, mean over the text's tokens."""
    no_speech_prob: float
    """Probability that there is no speech, 0 to 1."""
    compression_ratio: float
    """Over 2.4 suggests a repetition loop."""
    model: str
    """Model that produced the text."""
    words: tuple[Word, ...] = ()
    """Empty without `word_timestamps`."""
    channel: int = 0
    """1 for the first, with `separate_channels`; 0: the channels were mixed."""
    language: str = ""
    """ISO 639-1 code, where the recording changes its language; empty: that of the transcript."""

    def as_dict(self) -> dict[str, Any]:
        """Return the segment as JSON-serializable values."""
        return {**vars(self), "words": [dict(vars(word)) for word in self.words]}


@dataclass(frozen=True)
class Routing:
    """Which model answered, and why."""

    fallback_used: bool
    final_model: str
    """Name of the model that produced the text."""
    confidence_below: bool
    """Any confidence check fell below its threshold."""
    language_check_applicable: bool
    """False if the caller forced the language."""
    reasons: tuple[str, ...] = ()
    """`low_logprob`, `low_language_probability`, `few_words`, `repetition`, `primary_error`, `requested`."""
    primary_confidence: float | None = None
    """exp(mean token log-probability), 0 to 1; None if the primary produced no text."""
    fallback_confidence: float | None = None
    """As `primary_confidence`, of the fallback."""
    fallback_error: str = ""
    """Error type of a fallback that was wanted and failed; empty otherwise."""

    def as_dict(self) -> dict[str, Any]:
        """Return the routing as JSON-serializable values."""
        return {**vars(self), "reasons": list(self.reasons)}


@dataclass(frozen=True)
class Timings:
    """Durations of the steps of one request, in seconds."""

    queue_wait: float
    primary_infer: float
    fallback_infer: float
    total: float

    def as_dict(self) -> dict[str, float]:
        """Return the timings in milliseconds, as `queue_wait_ms` and so on, rounded to the microsecond."""
        return {f"{name}_ms": round(seconds * 1000, 3) for name, seconds in vars(self).items()}


@dataclass(frozen=True)
class Transcript:
    """Answer of `Transcribe`."""

    request_id: str
    text: str
    language: str
    """ISO 639-1 code."""
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
        """Return the JSON of `POST /v1/transcribe`: times in seconds, `timings` in milliseconds."""
        return {
            "request_id": self.request_id,
            "text": self.text,
            "language": self.language,
            "language_probability": self.language_probability,
            "audio_duration": self.audio_duration,
            "segments": [segment.as_dict() for segment in self.segments],
            "routing": self.routing.as_dict(),
            "timings": self.timings.as_dict(),
            "model": self.routing.final_model,
        }


@dataclass(frozen=True)
class Progress:
    """How far a transcription is."""

    audio_duration: float | None
    """Seconds of the recording; None: not known yet."""
    audio_settled: float
    """Seconds of it whose text is final. Never falls."""
    elapsed: float
    """Seconds since the call began."""
    audio_kept: float = 0.0
    """Seconds of `audio_settled` that an earlier, interrupted run had transcribed."""

    @property
    def speed(self) -> float | None:
        """Seconds of audio transcribed per second; None until the first is."""
        done = self.audio_settled - self.audio_kept
        return done / self.elapsed if done > 0 and self.elapsed > 0 else None

    @property
    def time_left(self) -> float | None:
        """Estimate of the seconds until the result, at the speed so far; None: not known."""
        if self.speed is None or self.audio_duration is None:
            return None
        return max(0.0, self.audio_duration - self.audio_settled) / self.speed


@dataclass(frozen=True)
class SettledSegments:
    """Segments whose text is final. In the order of the result, which repeats them."""

    segments: tuple[Segment, ...]


TranscribeEvent = Progress | SettledSegments | Transcript
"""Event of `transcribe_with_progress`: the transcript is the last."""


@dataclass(frozen=True)
class Limits:
    """Limits of a service."""

    max_upload_bytes: int
    """Bytes of audio per request."""
    max_audio_duration: float
    """Seconds of decoded audio per request."""
    max_concurrency: int
    """Inferences at a time."""
    max_queue: int
    """Requests that may wait for an inference slot."""


def smallest(limits: Sequence[Limits]) -> Limits:
    """The limits that all of several services allow; 0 is none."""

    def least(values: Iterable[float]) -> float:
        return min((value for value in values if value > 0), default=0)

    return Limits(
        max_upload_bytes=int(least(each.max_upload_bytes for each in limits)),
        max_audio_duration=least(each.max_audio_duration for each in limits),
        max_concurrency=int(least(each.max_concurrency for each in limits)),
        max_queue=int(least(each.max_queue for each in limits)),
    )


@dataclass(frozen=True)
class Status:
    """Answer of `GetStatus`."""

    service: str
    """`primary` or `fallback`."""
    model: str
    device: str
    """`cpu` or `cuda`."""
    compute_type: str
    """CTranslate2 compute type, such as `int8`."""
    server_commit: str
    uptime: float
    """Seconds."""
    limits: Limits
    snapshot: dict[str, Any]
    """Counters and latency quantiles, as `GET /v1/metrics` returns them."""

    def as_dict(self) -> dict[str, Any]:
        """Return the status as JSON-serializable values."""
        return asdict(self)


@dataclass(frozen=True)
class GatewayRefusals:
    """Requests that a gateway refused without calling the service."""

    endpoint: str
    """Label of `stt_requests_total`."""
    type: str
    """Error type."""
    count: int


@dataclass(frozen=True)
class Metrics:
    """Answer of `GetMetrics`."""

    exposition: str
    """Prometheus text, as a scrape of `/metrics` returns it."""
    content_type: str
