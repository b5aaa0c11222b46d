"""Messages into a live session, and events out of it. Times are seconds from the start of the stream."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from protos.stt.v1.trace_context import TraceContext
from stt_server.audio import SAMPLE_RATE, AudioFormat
from stt_server.audio.vad import WINDOW
from stt_server.engine.types import DecodeOptions
from stt_server.errors import InvalidArgument
from stt_server.request import Trace, Transcript
from stt_server.routing import Policy

MIN_RATE, MAX_RATE = 8_000, 48_000
"""Accepted sample rates, in Hz."""

MAX_AUDIO_MESSAGE = 1 << 20
"""Largest audio message, in bytes."""

MIN_ENDPOINT_SILENCE, MAX_ENDPOINT_SILENCE, ENDPOINT_SILENCE = 0.1, 5.0, 0.6
"""Range and default of the silence that ends an utterance, in seconds."""

WINDOW_SECONDS = WINDOW / SAMPLE_RATE
"""Length of a window of voice activity detection: 0.032 s."""


@dataclass(frozen=True)
class StreamConfig:
    """A stream's first message."""

    options: DecodeOptions
    format: AudioFormat
    policy: Policy = "auto"
    interim_results: bool = False
    endpoint_silence: float = ENDPOINT_SILENCE
    single_utterance: bool = False

    def validate(self) -> None:
        """Raise InvalidArgument with the field's name and range if a value is not accepted."""
        if self.format.encoding == "container":
            raise InvalidArgument("format.encoding: streams carry headerless audio; expected LINEAR16, MULAW or ALAW")
        if not MIN_RATE <= self.format.sample_rate <= MAX_RATE:
            raise InvalidArgument(
                f"format.sample_rate_hertz: expected {MIN_RATE} to {MAX_RATE}, got {self.format.sample_rate}"
            )
        self.format.validate()
        if not MIN_ENDPOINT_SILENCE <= self.endpoint_silence <= MAX_ENDPOINT_SILENCE:
            raise InvalidArgument(
                f"endpoint_silence: expected {MIN_ENDPOINT_SILENCE:g} to {MAX_ENDPOINT_SILENCE:g} s, "
                f"got {self.endpoint_silence:g}"
            )


@dataclass(frozen=True)
class Audio:
    data: bytes = field(repr=False)


@dataclass(frozen=True)
class Flush:
    """Ends the current utterance at once."""


@dataclass(frozen=True)
class Empty:
    """A message without a payload; always rejected."""


Message = StreamConfig | Audio | Flush | Empty


@dataclass(frozen=True)
class UtteranceBounds:
    """Where an utterance lies in the stream, in VAD windows from the stream's start. Ends are exclusive."""

    start: int
    """With padding before the first speech."""
    end: int
    """With padding after the last speech."""
    speech: tuple[tuple[int, int], ...]
    """Spans of speech, in order; at least one."""
    certain: bool
    """False if only the model can decide whether this is speech."""


@dataclass(frozen=True)
class SpeechStarted:
    """Speech is certain, and began at `offset`."""

    offset: float


@dataclass(frozen=True)
class SpeechEnded:
    """The current utterance has ended."""

    bounds: UtteranceBounds
    noticed_at: float
    """Length of the stream that had been processed when the end was noticed."""

    @property
    def offset(self) -> float:
        return self.bounds.speech[-1][1] * WINDOW_SECONDS


@dataclass(frozen=True)
class PossibleSpeech:
    """A sound has ended that may have been speech, such as a whisper; the model decides. Never sent to the caller."""

    bounds: UtteranceBounds
    noticed_at: float
    """Length of the stream that had been processed when the end was noticed."""

    @property
    def started(self) -> float:
        return self.bounds.speech[0][0] * WINDOW_SECONDS


SpeechEvent = SpeechStarted | SpeechEnded | PossibleSpeech


@dataclass(frozen=True)
class Interim:
    utterance: int
    """Counts from 0."""
    stable: str
    """Only grows within an utterance."""
    unstable: str
    """May still change. Follows `stable` directly; includes the space between them."""
    language: str


@dataclass(frozen=True)
class Final:
    utterance: int
    transcript: Transcript
    trace: Trace
    total: float
    """Seconds from the notice of the utterance's end to its final."""
    began: float
    """When its recognition began, before the notice of its end if that was speculative. Monotonic seconds."""
    span: TraceContext | None = None
    """Its part of the call in the caller's trace."""


Event = SpeechStarted | SpeechEnded | Interim | Final


@dataclass(frozen=True)
class Sent:
    """An event as the caller receives it."""

    event: Event
    audio_processed: float
    """Length of the stream that had been processed when the event was sent."""


class StreamObserver(Protocol):
    """Receives measurements of all live streams. Delays are in seconds of real time."""

    def opened(self) -> None: ...

    def closed(self) -> None: ...

    def audio_processed(self, seconds: float) -> None:
        """Count audio that has passed voice activity detection."""
        ...

    def interim_sent(self, lag: float, first_after: float | None) -> None:
        """Record an interim.

        Args:
            lag: age of the newest audio in it.
            first_after: for an utterance's first interim, the time since the audio arrived in which speech began.
        """
        ...

    def interim_thinned(self) -> None:
        """Count an interim that was skipped or replaced by a newer one."""
        ...

    def final_sent(self, final: Final, after_speech: float, after_endpoint: float) -> None:
        """Record a final.

        Args:
            after_speech: time since the utterance's last speech arrived.
            after_endpoint: time since the audio arrived that ended the utterance.
        """
        ...
