"""Files made to harm who decodes them."""

from __future__ import annotations

import struct

from tests.unit.audio_samples import chirp, encode


def flac_of_silence(seconds: float, rate: int = 16_000) -> bytes:
    """15 bytes for each 4 seconds."""
    block = 0xFFFF
    form = struct.pack(">HH6xQ16x", block, block, rate << 44 | 15 << 36)
    parts = [b"fLaC\x80\0\0\x22", form]
    for number in range(int(seconds * rate / block) + 1):
        head = b"\xff\xf8\x70\0" + chr(number).encode("utf-8", "surrogatepass") + struct.pack(">H", block - 1)
        frame = head + bytes([_crc(head, 8, 0x07)]) + b"\0\0\0"
        parts.append(frame + struct.pack(">H", _crc(frame, 16, 0x8005)))
    return b"".join(parts)


def _crc(data: bytes, bits: int, polynomial: int) -> int:
    """As FLAC has it: from zero, highest bit first."""
    crc, top = 0, 1 << bits - 1
    for byte in data:
        crc ^= byte << bits - 8
        for _ in range(8):
            crc = (crc << 1 ^ polynomial if crc & top else crc << 1) & (1 << bits) - 1
    return crc


def rebuilt(boxes: bytes, new: dict[bytes, bytes]) -> bytes:
    """MP4 `boxes` with the contents of some replaced, at any depth of the sample table."""
    out = b""
    while boxes:
        size, kind = struct.unpack(">I4s", boxes[:8])
        content, boxes = boxes[8:size], boxes[size:]
        if kind in (b"moov", b"trak", b"mdia", b"minf", b"stbl"):
            content = rebuilt(content, new)
        content = new.get(kind, content)
        out += struct.pack(">I4s", len(content) + 8, kind) + content
    return out


def mp4_with_a_huge_index(samples: int = 80_000_000) -> bytes:
    """A kilobyte whose index has gigabytes: so many samples of one byte, each with an entry of 24 bytes."""
    honest = encode(chirp(0.2), 16_000, "ipod", "aac")
    first_byte = honest.index(b"mdat") + 4
    return rebuilt(
        honest,
        {
            b"stts": struct.pack(">4I", 0, 1, samples, 1024),
            b"stsc": struct.pack(">5I", 0, 1, 1, samples, 1),
            b"stsz": struct.pack(">3I", 0, 1, samples),
            b"stco": struct.pack(">3I", 0, 1, first_byte),
        },
    )
