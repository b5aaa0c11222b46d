"""Formats of recordings, and the limits on sample rates and channels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from stt_server.errors import InvalidArgument

SAMPLE_RATE = 16_000
"""Whisper's sample rate in hertz."""

MIN_RATE, MAX_RATE = 4_000, 192_000
"""Hertz. With lower rates a few kilobytes could claim to be hours; higher ones aren't used for recording."""

MAX_CHANNELS = 8


Encoding = Literal["container", "linear16", "mulaw", "alaw"]


@dataclass(frozen=True)
class AudioFormat:
    """How to read the bytes of a recording."""

    encoding: Encoding = "container"
    """`container`: a file with its own header. Headerless: `linear16`, signed 16-bit little-endian; G.711 `mulaw` and
    `alaw`."""
    sample_rate: int = 0
    """Hertz, 4000 to 192000; for headerless encodings only."""
    channels: int = 1
    """Interleaved channels, 1 to 8; for headerless encodings only."""

    def validate(self) -> None:
        """Raise InvalidArgument, with the field and its range, if a headerless format is out of range."""
        if self.encoding == "container":
            return
        if not MIN_RATE <= self.sample_rate <= MAX_RATE:
            raise InvalidArgument(
                f"sample_rate_hertz must be {MIN_RATE} to {MAX_RATE} with a headerless encoding, not {self.sample_rate}"
            )
        if not 1 <= self.channels <= MAX_CHANNELS:
            raise InvalidArgument(f"channel_count must be 1 to {MAX_CHANNELS}, not {self.channels}")


def check_stated(rate: int, channels: int) -> None:
    """Raise InvalidArgument if the sample rate or the number of channels in a file's header is out of range."""
    if not MIN_RATE <= rate <= MAX_RATE:
        raise InvalidArgument(f"the file's sample rate is {rate} Hz; it must be {MIN_RATE} to {MAX_RATE} Hz")
    if not 1 <= channels <= MAX_CHANNELS:
        raise InvalidArgument(f"the file has {channels} channels; it must have 1 to {MAX_CHANNELS}")
