"""Forecast how much speech is in an upload, before it is decoded."""

from __future__ import annotations

import struct

from stt_server.admission.service_time import DecayingSums, Load
from stt_server.audio import MAX_CHUNK_SECONDS, AudioFormat
from stt_server.audio.formats import MAX_CHANNELS
from stt_server.audio.signatures import sniff
from stt_server.request import Upload

_BYTES_PER_SECOND = {
    **{"wav": 32_000, "w64": 88_000, "aiff": 88_000, "flac": 16_000, "ogg": 4_000, "amr": 1_600, "gsm": 1_650},
    **{"avi": 64_000, "mpegts": 64_000, "flv": 32_000},
}
_DEFAULT_BYTES_PER_SECOND = 8_000
"""Initial values, for speech as it is usually sent; measurements soon correct them."""

_MIN_BYTES_PER_SECOND = 1_000
"""Lower bit rates in a header are not believed: such a file is refused for what it is once decoded, not as too long."""

_LOWEST_BYTES_PER_SECOND = 500
"""Of compressed speech, such as AMR at 4.75 kbit/s."""

_USUAL_CHANNELS = 2
"""Of a compressed recording whose channels are to be kept apart."""

_CHUNK_SECONDS = 9.0
"""Typical length of the chunks of a recording that doesn't fit into one: it is cut between sentences."""


class AudioLengthForecast:
    """Estimates the model's load from an upload's size and format.

    Learns, for each format, the ratio of speech found to the length that size alone suggests.
    """

    def __init__(self) -> None:
        self._seen: dict[str, DecayingSums] = {}
        """By format: seconds of audio in chunks, and seconds by size."""

    def estimate(self, upload: Upload) -> Load:
        """The load that an upload is likely to be."""
        format, by_size = _seconds_by_size(upload)
        found, expected = self._seen[format].sums if format in self._seen else (1.0, 1.0)
        seconds = by_size * found / expected
        return Load(1.0 if seconds <= MAX_CHUNK_SECONDS else seconds / _CHUNK_SECONDS, seconds)

    def learn(self, upload: Upload, load: Load) -> None:
        """Record the load that an upload turned out to be."""
        format, by_size = _seconds_by_size(upload)
        if by_size:
            self._seen.setdefault(format, DecayingSums(2)).add(load.seconds, by_size)


def most_audio(upload: Upload, max_seconds: float) -> float:
    """Seconds of decoded audio that an upload can be expected to be at most, all channels together.

    Exact for headerless audio and for WAV; by the lowest bit rate of speech codecs for others, which may exceed it.

    Args:
        max_seconds: longest recording that is accepted, of one channel.
    """
    data, format = upload.data, upload.format
    seconds, channels = len(data) / _LOWEST_BYTES_PER_SECOND, _USUAL_CHANNELS
    if format.encoding != "container":
        seconds, channels = _seconds_of(data, format)[1], format.channels
    elif data[8:16] == b"WAVEfmt " and len(data) >= 32:
        seconds, channels = _seconds_of(data, format)[1], struct.unpack_from("<H", data, 22)[0]
    return min(seconds, max_seconds) * (min(channels, MAX_CHANNELS) if upload.separate_channels else 1)


def _seconds_by_size(upload: Upload) -> tuple[str, float]:
    """The name of an upload's format, and its length in seconds going by its size."""
    name, seconds = _seconds_of(upload.data, upload.format)
    # Each channel is recognized by itself, so that the same format holds more speech.
    return f"{name} by channel" if upload.separate_channels else name, seconds


def _seconds_of(audio: bytes, format: AudioFormat) -> tuple[str, float]:
    if format.encoding != "container":
        sample_bytes = 2 if format.encoding == "linear16" else 1
        rate = sample_bytes * format.sample_rate * format.channels
        return format.encoding, len(audio) / max(_MIN_BYTES_PER_SECOND, rate)
    name = sniff(audio) or "unknown"
    rate = _BYTES_PER_SECOND.get(name, _DEFAULT_BYTES_PER_SECOND)
    if name == "wav" and audio[12:16] == b"fmt " and len(audio) >= 32:
        rate = max(struct.unpack_from("<I", audio, 28)[0], _MIN_BYTES_PER_SECOND)  # the header's own byte rate
    return name, len(audio) / rate
