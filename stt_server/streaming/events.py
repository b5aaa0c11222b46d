"""What comes into a live session, and what comes out. Times are seconds from the start of the stream."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Protocol

from stt_server.audio import AudioFormat
from stt_server.engine.types import DecodeOptions
from stt_server.errors import InvalidArgument
from stt_server.request import Trace, Transcript
from stt_server.routing import Policy

MIN_RATE, MAX_RATE = 8_000, 48_000
"""Hertz of live audio."""

MAX_AUDIO_MESSAGE = 1 << 20
"""Bytes."""

MIN_ENDPOINT_SILENCE, MAX_ENDPOINT_SILENCE, ENDPOINT_SILENCE = 0.1, 5.0, 0.6
"""Seconds: range and default."""


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
        """Raises InvalidArgument, naming the field and its range."""
        if self.format.encoding == "container":
            raise InvalidArgument("format.encoding: a stream is headerless; say LINEAR16 or MULAW")
        if not MIN_RATE <= self.format.sample_rate <= MAX_RATE:
            raise InvalidArgument(
                f"format.sample_rate_hertz: a stream needs {MIN_RATE} to {MAX_RATE}, not {self.format.sample_rate}"
            )
        self.format.validate()
        if not MIN_ENDPOINT_SILENCE <= self.endpoint_silence <= MAX_ENDPOINT_SILENCE:
            raise InvalidArgument(
                f"endpoint_silence: {MIN_ENDPOINT_SILENCE:g} to {MAX_ENDPOINT_SILENCE:g} s, "
                f"not {self.endpoint_silence:g}"
            )


@dataclass(frozen=True)
class Audio:
    data: bytes = field(repr=False)


@dataclass(frozen=True)
class Flush:
    """Ends the current utterance now."""


@dataclass(frozen=True)
class Nothing:
    """A message without a payload, which breaks the rules."""


Message = StreamConfig | Audio | Flush | Nothing


@dataclass(frozen=True)
class Speech:
    """Speech began, or it ended."""

    type: Literal["started", "ended"]
    offset: float


@dataclass(frozen=True)
class Interim:
    utterance: int
    """From 0."""
    stable: str
    """Only ever grows within an utterance."""
    unstable: str
    """May still change. Follows `stable` as it stands, with the space between them in it."""
    language: str


@dataclass(frozen=True)
class Final:
    utterance: int
    transcript: Transcript
    trace: Trace
    total: float
    """Seconds from the end of the utterance being noticed to its final."""


Event = Speech | Interim | Final


@dataclass(frozen=True)
class Sent:
    """An event on its way out."""

    event: Event
    heard: float
    """How much of the stream had been heard by then."""


class Watch(Protocol):
    """Is told how live streams are doing, in seconds of the service's clock."""

    def opened(self) -> None: ...

    def closed(self) -> None: ...

    def heard(self, seconds: float) -> None:
        """So much more audio has been heard."""
        ...

    def interim(self, lag: float, first_after: float | None) -> None:
        """An interim was sent.

        Args:
            lag: the age of the newest audio in it.
            first_after: of an utterance's first one: since the arrival of the audio in which speech began.
        """
        ...

    def thinned(self) -> None:
        """An interim was left out."""
        ...

    def final(self, final: Final, after_speech: float, after_endpoint: float) -> None:
        """A final was sent.

        Args:
            after_speech: since the arrival of the last audio with speech in it.
            after_endpoint: since the arrival of the audio that ended the utterance.
        """
        ...
