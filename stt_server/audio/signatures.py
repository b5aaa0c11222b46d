"""Detects the format of a file by its first bytes.

FFmpeg gets the demuxer that is found here and probes nothing itself, so that playlists and other files that name files
or addresses (ffconcat, m3u8, MPD, SDP, SMIL, ...) never reach a demuxer that would open them.
"""

from __future__ import annotations

from typing import NamedTuple

from stt_server.audio.mpeg_frames import find_stream, parse_frame

_MAGICS = (
    (b"fLaC", "flac"),
    (b"OggS", "ogg"),
    (b"\x1a\x45\xdf\xa3", "matroska"),
    (b"#!AMR", "amr"),
    (b".snd", "au"),
    (b"caff", "caf"),
    (b"FLV\x01", "flv"),
    (bytes.fromhex("726966662e91cf11a5d628db04c10000"), "w64"),
    (bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c"), "asf"),
)
"""First bytes of a file and FFmpeg's demuxer for it."""

_RIFFS = {
    **{(kind, b"WAVE"): "wav" for kind in (b"RIFF", b"RF64", b"BW64", b"RIFX")},
    (b"RIFF", b"AVI "): "avi",
    **{(b"FORM", kind): "aiff" for kind in (b"AIFF", b"AIFC")},
}
"""Demuxers by the kind of file in the first four bytes and in the third four."""

_ATOMS = (b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")
"""Atoms that QuickTime files without `ftyp` begin with."""

_TS_PACKETS = (188, 192, 204)
"""Bytes of an MPEG transport stream's packets: plain, with a time stamp (AVCHD cameras), with error correction."""
_TS_SYNC, _TS_COUNT = b"\x47", 5

_GSM_FRAME_BYTES = 33
_GSM_COUNT = 10
"""Raw GSM 06.10 has no header, but each of its frames begins with 1101."""

_ID3_HEADER_BYTES = 10
_MOST_ZEROS = 1 << 20
"""Recorders and damaged disks leave zeros in front of MP3 and AAC."""


class Signature(NamedTuple):
    """What a file is."""

    demuxer: str
    """FFmpeg's name for its format."""
    start: int = 0
    """Offset of its first byte, after zeros or the rest of a frame."""


def detect(data: bytes) -> Signature | None:
    """The format of the file `data`; None if it isn't a supported one."""
    demuxer = _at_start(data)
    if demuxer is not None:
        return Signature(demuxer)
    return _within(data)


def sniff(data: bytes) -> str | None:
    """The name of the FFmpeg demuxer for `data`; None if the format isn't supported."""
    found = detect(data)
    return None if found is None else found.demuxer


def _at_start(data: bytes) -> str | None:
    for magic, demuxer in _MAGICS:
        if data.startswith(magic):
            return demuxer
    if (data[:4], data[8:12]) in _RIFFS:
        return _RIFFS[data[:4], data[8:12]]
    if _is_quicktime(data):
        return "mov"
    if data.startswith(b"ID3"):
        return _after_id3(data)
    frame = parse_frame(data)
    return frame.demuxer if frame is not None else _dolby(data) or _without_header(data)


def _is_quicktime(data: bytes) -> bool:
    if data[4:8] == b"ftyp":
        return True
    size = int.from_bytes(data[:4], "big")
    # 1: the size follows, in 64 bits. Text with one of these words in the right place claims 512 MiB and more.
    return data[4:8] in _ATOMS and (size == 1 or 8 <= size <= len(data))


def _after_id3(data: bytes) -> str | None:
    """The demuxer for a file that starts with an ID3 tag: usually MP3, but FLAC and AAC may have one too."""
    if len(data) < _ID3_HEADER_BYTES:
        return None
    size = 0
    for seven_bits in data[6:_ID3_HEADER_BYTES]:
        size = size << 7 | seven_bits & 0x7F
    start = _ID3_HEADER_BYTES + size
    if data[start : start + 4] == b"fLaC":
        return "flac"
    frame = parse_frame(data, start)
    if frame is not None:
        return frame.demuxer
    found = find_stream(data, start)
    return "mp3" if found is None else found[0]


def _dolby(data: bytes) -> str | None:
    """AC-3 and E-AC-3 differ in their bit stream identification, the upper five bits of the sixth byte."""
    if not data.startswith(b"\x0b\x77") or len(data) < 6:
        return None
    identification = data[5] >> 3
    return "ac3" if identification <= 10 else "eac3" if identification <= 16 else None


def _without_header(data: bytes) -> str | None:
    """The demuxer for a series of packets that begin alike: MPEG transport streams and raw GSM."""
    for size in _TS_PACKETS:
        columns = data[: size * _TS_COUNT]
        if any(columns[at::size] == _TS_SYNC * _TS_COUNT for at in range(size)):
            return "mpegts"
    marks = data[: _GSM_FRAME_BYTES * 64 : _GSM_FRAME_BYTES]
    return "gsm" if len(marks) >= _GSM_COUNT and all(mark >> 4 == 0xD for mark in marks) else None


def _within(data: bytes) -> Signature | None:
    """MP3 or AAC behind zeros, or that begins within a frame."""
    start = len(data[:_MOST_ZEROS]) - len(data[:_MOST_ZEROS].lstrip(b"\0"))
    if start and data.startswith(b"ID3", start):
        return Signature("mp3", start)
    found = find_stream(data, start)
    return None if found is None else Signature(*found)
