"""Finds MPEG audio (MP2, MP3) and ADTS AAC by their frames, which need no header of the file."""

from __future__ import annotations

from typing import NamedTuple

_FRAMES = 4
"""Consecutive frames that prove a stream where the first one isn't at the start of the file."""

_SEARCHED_BYTES = 1 << 14
"""Longer than two of the largest frames, of which the first may be cut."""

_V1_LAYER_2 = (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384)
_V1_LAYER_3 = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_V2 = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
"""Bit rates in kbit/s by index; ISO 11172-3 and 13818-3."""

_RATES = (44_100, 48_000, 32_000)
"""Hertz by index, for version 1; half of it for version 2, a quarter for 2.5."""


class Frame(NamedTuple):
    """What a frame's header says."""

    demuxer: str
    """`mp3` (layers 2 and 3) or `aac`, as FFmpeg names them."""
    length: int
    """Bytes with the header; 0 for a free-format frame, whose length isn't stated."""
    constant: bytes
    """Parts of the header that all frames of a stream share."""


def parse_frame(data: bytes, at: int = 0) -> Frame | None:
    """The frame whose header begins at `at`; None if it isn't one, or has reserved values.

    The eleven sync bits alone would match UTF-16 text, whose byte order mark is FF FE.
    """
    header = data[at : at + 6]
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE0 != 0xE0:
        return None
    layer = header[1] >> 1 & 3
    if header[1] & 0xF0 == 0xF0 and layer == 0:  # ADTS: twelve sync bits, and the layer always 0
        if header[2] >> 2 & 0xF > 12:
            return None
        size = (header[3] & 3) << 11 | header[4] << 3 | header[5] >> 5 if len(header) == 6 else 0
        return Frame("aac", size, bytes([header[1], header[2] & 0xFD]))
    version, bitrate_index, rate_index = header[1] >> 3 & 3, header[2] >> 4, header[2] >> 2 & 3
    if layer not in (1, 2) or version == 1 or bitrate_index == 0xF or rate_index == 3:
        return None
    rates = _V2 if version != 3 else _V1_LAYER_2 if layer == 2 else _V1_LAYER_3
    hertz = _RATES[rate_index] // {3: 1, 2: 2, 0: 4}[version]
    samples = 576 if layer == 1 and version != 3 else 1152
    size = samples * rates[bitrate_index] * 125 // hertz + (header[2] >> 1 & 1) if bitrate_index else 0
    return Frame("mp3", size, bytes([header[1] & 0xFE, header[2] & 0x0C]))


def find_stream(data: bytes, start: int) -> tuple[str, int] | None:
    """The demuxer and the offset of a stream of frames near `start`, for a file that begins within a frame."""
    at = data.find(b"\xff", start, start + _SEARCHED_BYTES)
    while at >= 0:
        frame = parse_frame(data, at)
        if frame is not None and _followed(data, at, frame):
            return frame.demuxer, at
        at = data.find(b"\xff", at + 1, start + _SEARCHED_BYTES)
    return None


def _followed(data: bytes, at: int, frame: Frame) -> bool:
    """Whether more frames of the same stream follow the one at `at`."""
    following: Frame | None = frame
    for _ in range(_FRAMES - 1):
        if following is None or following.length < 7 or following.constant != frame.constant:
            return False
        at += following.length
        following = parse_frame(data, at)
    return following is not None and following.constant == frame.constant
