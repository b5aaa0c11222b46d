"""Supported audio formats, their detection, and the limits on sample rates and channels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from stt_server.errors import InvalidArgument

SAMPLE_RATE = 16_000
"""Whisper's sample rate in hertz."""

MIN_RATE, MAX_RATE = 4_000, 192_000
"""Hertz. With lower rates a few kilobytes could claim to be hours; higher ones aren't used for recording."""

MAX_CHANNELS = 8

_ID3_HEADER_BYTES = 10


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


def sniff(data: bytes) -> str | None:
    """The name of the FFmpeg demuxer for `data`, by its first bytes; None if the format isn't supported.

    FFmpeg uses this demuxer and probes nothing itself, so that playlists (ffconcat, m3u8, MPD, SDP) never reach a
    demuxer that would open the files and addresses in them.
    """
    if data[:4] in (b"RIFF", b"RF64", b"BW64") and data[8:12] == b"WAVE":
        return "wav"
    if data[4:8] == b"ftyp":
        return "mov"
    for magic, demuxer in ((b"fLaC", "flac"), (b"OggS", "ogg"), (b"\x1a\x45\xdf\xa3", "matroska")):
        if data.startswith(magic):
            return demuxer
    if data.startswith(b"ID3"):
        return _sniff_after_id3(data)
    return _sniff_frame_sync(data)


def _sniff_after_id3(data: bytes) -> str | None:
    """The demuxer for a file that starts with an ID3 tag: usually MP3, but FLAC and AAC may have one too."""
    if len(data) < _ID3_HEADER_BYTES:
        return None
    size = 0
    for seven_bits in data[6:_ID3_HEADER_BYTES]:
        size = size << 7 | seven_bits & 0x7F
    audio = data[_ID3_HEADER_BYTES + size :][:4]
    return "flac" if audio == b"fLaC" else _sniff_frame_sync(audio) or "mp3"


def _sniff_frame_sync(data: bytes) -> str | None:
    """The demuxer for MPEG audio or ADTS, by the first frame's header without its reserved values.

    The eleven sync bits alone would match UTF-16 text, whose byte order mark is FF FE.
    """
    if len(data) < 4 or data[0] != 0xFF or data[1] & 0xE0 != 0xE0:
        return None
    layer = data[1] >> 1 & 3
    if data[1] & 0xF0 == 0xF0 and layer == 0:  # ADTS: twelve sync bits, and the layer always 0
        rate_index = data[2] >> 2 & 0xF
        return "aac" if rate_index <= 12 else None
    version = data[1] >> 3 & 3
    bitrate_index, rate_index = data[2] >> 4, data[2] >> 2 & 3
    is_layer_2_or_3 = layer in (1, 2)
    return "mp3" if is_layer_2_or_3 and version != 1 and bitrate_index != 0xF and rate_index != 3 else None
