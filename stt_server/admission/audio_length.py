"""How much of a recording the model will have to hear, guessed before it is decoded."""

from __future__ import annotations

import struct

from stt_server.admission.service_time import Faded, Load
from stt_server.audio import MAX_CHUNK_SECONDS, AudioFormat
from stt_server.audio.formats import sniff

_BYTES_A_SECOND = {"wav": 32_000, "flac": 16_000, "ogg": 4_000}
_BYTES_A_SECOND_ELSE = 8_000
"""Of speech as it is mostly sent; what is really sent tells better, soon."""

_LEAST_BYTES_A_SECOND = 1_000
"""Who claims fewer is told that it is no audio, once it is read, and not that there is no time for it."""

_CHUNK_SECONDS = 9.0
"""A recording that doesn't fit into one chunk is cut between sentences, into chunks of about so much."""


class Lengths:
    """Guesses how much of a recording the model will have to hear, before it is decoded.

    By its size, its format, and how much there was in those of its format before.
    """

    def __init__(self) -> None:
        self._seen: dict[str, Faded] = {}
        """By format, of which there are few: seconds that the model heard, and seconds by size alone."""

    def guess(self, audio: bytes, format: AudioFormat) -> Load:
        """What it may be."""
        kind, by_size = _by_size(audio, format)
        heard, sized = self._seen[kind].sums if kind in self._seen else (1.0, 1.0)
        seconds = by_size * heard / sized
        return Load(1.0 if seconds <= MAX_CHUNK_SECONDS else seconds / _CHUNK_SECONDS, seconds)

    def learn(self, audio: bytes, format: AudioFormat, load: Load) -> None:
        """Takes note of what it was."""
        kind, by_size = _by_size(audio, format)
        if by_size:
            self._seen.setdefault(kind, Faded(2)).add(load.seconds, by_size)


def _by_size(audio: bytes, format: AudioFormat) -> tuple[str, float]:
    """A recording's format, and its length in seconds by its size."""
    if format.encoding == "linear16":
        return format.encoding, len(audio) / max(_LEAST_BYTES_A_SECOND, 2 * format.sample_rate * format.channels)
    kind = format.encoding if format.encoding == "mulaw" else sniff(audio[:64]) or "unknown"
    rate = _BYTES_A_SECOND.get(kind, _BYTES_A_SECOND_ELSE)
    if kind == "wav" and audio[12:16] == b"fmt " and len(audio) >= 32:
        rate = max(struct.unpack_from("<I", audio, 28)[0], _LEAST_BYTES_A_SECOND)  # it says so itself
    return kind, len(audio) / rate
