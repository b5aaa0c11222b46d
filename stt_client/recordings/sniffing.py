"""Recognizes recordings by their first bytes."""

from __future__ import annotations

from pathlib import Path

HEAD_BYTES = 64 * 1024
"""First bytes of a file that `looks_like_audio` needs at most."""

_MAGICS = (
    b"fLaC",
    b"OggS",
    b"ID3",
    b"\x1a\x45\xdf\xa3",  # Matroska, WebM
    b"caff",
    b".snd",
    b"#!AMR",
    b"FLV\x01",
    b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb",  # Sony Wave64
    b"\x30\x26\xb2\x75\x8e\x66\xcf\x11",  # ASF: WMA, WMV
)
_FORMS = {
    b"RIFF": (b"WAVE", b"AVI "),
    b"RIFX": (b"WAVE",),
    b"RF64": (b"WAVE",),
    b"BW64": (b"WAVE",),
    b"FORM": (b"AIFF", b"AIFC"),
}
"""Form types by the tag of the file, as in the interchange file format."""

_QUICKTIME_ATOMS = frozenset((b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"))
_IMAGE_BRANDS = frozenset((b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1", b"avif", b"avis"))
"""Brands of still images in the MP4 container, as phones store them."""

_TS_LAYOUTS = ((0, 188), (4, 192))
"""Offset of the first sync byte, and length of a packet, of MPEG transport streams."""
_CHAIN_FRAMES = 3
"""Consecutive frames that make a stream of MPEG audio; a single header may occur in any data."""

_BITRATES_KBPS = {
    (1, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (1, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (1, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (2, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
"""By MPEG version (2 stands for 2.5 as well) and layer; ISO 11172-3, table 2.4.2.3, and ISO 13818-3."""
_RATES_HZ = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
"""By the version bits of the header."""


def is_audio_file(path: Path) -> bool:
    """Whether the file's first bytes are those of a recording; False also if it can't be read."""
    try:
        with path.open("rb") as file:
            return looks_like_audio(file.read(HEAD_BYTES))
    except OSError:
        return False


def looks_like_audio(head: bytes) -> bool:
    """Whether the first bytes, `HEAD_BYTES` or the whole file, are those of an audio or video format."""
    if head.startswith(_MAGICS) or head[8:12] in _FORMS.get(head[:4], ()):
        return True
    if head[4:8] == b"ftyp":
        return head[8:12] not in _IMAGE_BRANDS
    if head[4:8] in _QUICKTIME_ATOMS:
        return True
    if any(_is_transport_stream(head, *layout) for layout in _TS_LAYOUTS):
        return True
    return _is_ac3(head) or _has_mpeg_frames(head)


def _is_transport_stream(head: bytes, first: int, length: int) -> bool:
    syncs = head[first : first + 5 * length : length]
    return len(syncs) >= 3 and set(syncs) == {0x47}


def _is_ac3(head: bytes) -> bool:
    # Bit stream identification of AC-3 (at most 10) and E-AC-3 (11 to 16); ETSI TS 102 366, 4.4.2.1.
    return head.startswith(b"\x0b\x77") and len(head) > 5 and head[5] >> 3 <= 16


def _has_mpeg_frames(head: bytes) -> bool:
    """Whether a chain of frames begins somewhere: recordings may begin within a frame, or behind zeros."""
    at = head.find(b"\xff")
    while at >= 0:
        if _is_chain(head, at):
            return True
        at = head.find(b"\xff", at + 1)
    return False


def _is_chain(head: bytes, at: int) -> bool:
    kind = None
    for _ in range(_CHAIN_FRAMES):
        header = head[at : at + 7]
        length = _frame_bytes(header)
        # The version, the layer and the rate stay the same within a recording.
        if length is None or kind not in (None, header[1] & 0xFE):
            return False
        kind = header[1] & 0xFE
        at += length
    return True


def _frame_bytes(header: bytes) -> int | None:
    """Length of the frame with this header of MPEG audio or ADTS; None if it is none."""
    if len(header) < 7 or header[0] != 0xFF or header[1] & 0xE0 != 0xE0:
        return None
    layer = 4 - (header[1] >> 1 & 3)
    if layer == 4:
        return _adts_bytes(header)
    version, bitrate, rate = header[1] >> 3 & 3, header[2] >> 4, header[2] >> 2 & 3
    if version == 1 or bitrate in (0, 15) or rate == 3:
        return None
    kbps = _BITRATES_KBPS[1 if version == 3 else 2, layer][bitrate - 1]
    hertz, padding = _RATES_HZ[version][rate], header[2] >> 1 & 1
    if layer == 1:
        return (12_000 * kbps // hertz + padding) * 4
    return (72_000 if layer == 3 and version != 3 else 144_000) * kbps // hertz + padding


def _adts_bytes(header: bytes) -> int | None:
    if header[1] & 0xF0 != 0xF0 or header[2] >> 2 & 0xF > 12:
        return None
    length = (header[3] & 3) << 11 | header[4] << 3 | header[5] >> 5
    return length if length > 7 else None
