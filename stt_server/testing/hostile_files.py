"""Hostile audio files: decompression bombs, loops, deep nesting, references to other files."""

from __future__ import annotations

import io
import struct

import av

from stt_server.testing.audio_samples import chirp, encode


def flac_of_silence(seconds: float, rate: int = 16_000, channels: int = 1) -> bytes:
    """A FLAC file of silence with about 12 bytes for each 4 s (one channel at 16 kHz)."""
    block = 0xFFFF
    form = struct.pack(">HH6xQ16x", block, block, rate << 44 | channels - 1 << 41 | 15 << 36)
    parts = [b"fLaC\x80\0\0\x22", form]
    for number in range(int(seconds * rate / block) + 1):
        head = (
            bytes([0xFF, 0xF8, 0x70, channels - 1 << 4])
            + chr(number).encode("utf-8", "surrogatepass")
            + struct.pack(">H", block - 1)
        )
        frame = head + bytes([_crc(head, 8, 0x07)]) + bytes(3 * channels)
        parts.append(frame + struct.pack(">H", _crc(frame, 16, 0x8005)))
    return b"".join(parts)


def _crc(data: bytes, bits: int, polynomial: int) -> int:
    """CRC as in FLAC: initial value 0, most significant bit first."""
    crc, top = 0, 1 << bits - 1
    for byte in data:
        crc ^= byte << bits - 8
        for _ in range(8):
            crc = (crc << 1 ^ polynomial if crc & top else crc << 1) & (1 << bits) - 1
    return crc


def rebuilt(boxes: bytes, new: dict[bytes, bytes]) -> bytes:
    """Replace the contents of MP4 boxes, at any depth down to the sample table and data references."""
    out = b""
    while boxes:
        size, kind = struct.unpack(">I4s", boxes[:8])
        content, boxes = boxes[8:size], boxes[size:]
        if kind in (b"moov", b"trak", b"mdia", b"minf", b"dinf", b"stbl"):
            content = rebuilt(content, new)
        content = new.get(kind, content)
        out += struct.pack(">I4s", len(content) + 8, kind) + content
    return out


def mp4_with_a_huge_index(samples: int = 80_000_000) -> bytes:
    """An MP4 of a kilobyte whose index of one-byte samples takes gigabytes: 24 bytes for each."""
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


def mp4_that_goes_round() -> bytes:
    """An MP4 whose index refers to the same bytes thousands of times."""
    honest = encode(chirp(4.0), 16_000, "ipod", "aac")
    first_byte = honest.index(b"mdat") + 4
    times, each = 4_000, 8_000
    return rebuilt(
        honest,
        {
            b"stts": struct.pack(">4I", 0, 1, times, 1),
            b"stsc": struct.pack(">5I", 0, 1, 1, 1, 1),
            b"stsz": struct.pack(">3I", 0, each, times),
            b"stco": struct.pack(">2I", 0, times) + struct.pack(">I", first_byte) * times,
        },
    )


def nested_boxes(depth: int = 100_000) -> bytes:
    """An MP4 with deeply nested boxes."""
    inner = b"".join(struct.pack(">I4s", 8 * (depth - level), b"moov") for level in range(depth))
    return struct.pack(">I4s4sI", 16, b"ftyp", b"isom", 0) + inner


def nested_elements(depth: int = 100_000) -> bytes:
    """A Matroska file with deeply nested elements of unknown size: a segment and tags."""
    ebml = bytes.fromhex("1a45dfa3a34286810142f7810142f2810442f381084282886d6174726f736b614287810442858102")
    return ebml + bytes.fromhex("18538067ff") + bytes.fromhex("1254c367ff" + "7373ff") + bytes.fromhex("67c8ff") * depth


def nested_tags(depth: int = 100_000) -> bytes:
    """Nested ID3 tags without audio: each contains all following ones."""
    out = []
    for level in range(depth):
        size = 10 * (depth - level - 1)
        out.append(b"ID3\4\0\0" + bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0)))
    return b"".join(out)


def endless_clusters(size: int = 4 << 20) -> bytes:
    """A Matroska file of unknown size with many empty clusters."""
    head = encode(chirp(0.5, 48_000), 48_000, "matroska", "libopus", muxer={"live": "1"})
    tracks = head[: head.index(bytes.fromhex("1f43b675"))]
    return tracks + bytes.fromhex("1f43b67584e7820000") * (size // 9)


def endless_streams(size: int = 4 << 20) -> bytes:
    """An Ogg file in which each page begins a new stream."""
    head = b"OpusHead\1\1\0\0\x80\xbb\0\0\0\0\0"
    pages = []
    for serial in range(size // (28 + len(head))):
        page = b"OggS\0\2" + bytes(8) + struct.pack("<III", serial, 0, 0) + b"\1" + bytes([len(head)]) + head
        crc = _crc(page, 32, 0x04C11DB7) if serial < 2000 else 0
        pages.append(page[:22] + struct.pack("<I", crc) + page[26:])
    return b"".join(pages)


def endless_chunks(size: int = 16_000_000) -> bytes:
    """A WAV file with many empty chunks."""
    return b"RIFF\xff\xff\xff\xffWAVE" + b"JUNK\0\0\0\0" * (size // 8)


def wav_around_a_flac() -> bytes:
    """1 s of FLAC frames in a WAV file, under the format tag for FLAC."""
    flac = encode(chirp(1.0), 16_000, "flac", "flac")
    fmt = struct.pack("<HHIIHHH", 0xF1AC, 1, 16_000, 32_000, 1, 16, 0)
    frames = flac[flac.index(b"\xff\xf8") :]
    body = b"WAVEfmt " + struct.pack("<I", len(fmt)) + fmt + b"data" + struct.pack("<I", len(frames)) + frames
    return b"RIFF" + struct.pack("<I", len(body)) + body


def silent_film(container: str = "mp4") -> bytes:
    """A film with video but no audio."""
    out = io.BytesIO()
    with av.open(out, "w", format=container) as target:
        video = target.add_stream("mpeg4", rate=10, width=32, height=32, pix_fmt="yuv420p")
        target.mux(video.encode(av.VideoFrame(32, 32, "yuv420p")))
        target.mux(video.encode(None))
    return out.getvalue()


def playlists(name: str) -> list[bytes]:
    """Playlists of each kind that FFmpeg would follow to the file or address `name`."""
    text = name.encode()
    mpd = b'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period><AdaptationSet '
    mpd += b'mimeType="audio/wav"><Representation id="1"><BaseURL>' + text + b"</BaseURL></Representation>"
    m3u8 = b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n" + text + b"\n#EXT-X-ENDLIST\n"
    return [
        b"ffconcat version 1.0\nfile '" + text + b"'\n",
        m3u8,
        b"ID3\x04\0\0\0\0\0\0" + m3u8,
        mpd + b"</AdaptationSet></Period></MPD>",
        b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 5004 RTP/AVP 0\r\n",
    ]


def mov_elsewhere(name: str) -> bytes:
    """A MOV that refers to another file for its samples."""
    url = struct.pack(">I4sI", 13 + len(name), b"url ", 0) + name.encode() + b"\0"
    honest = encode(chirp(0.5), 16_000, "mov", "pcm_s16le")
    return rebuilt(honest, {b"dref": struct.pack(">II", 0, 1) + url})


def mov_alias(name: str) -> bytes:
    """A MOV that refers to a file in the same folder by a Macintosh alias, which FFmpeg would follow if enabled to."""
    record = bytes(10) + b"\x06volume".ljust(28, b"\0") + bytes(12)
    record += bytes([len(name)]) + name.encode().ljust(63, b"\0") + bytes(16) + struct.pack(">HH", 1, 1) + bytes(16)
    path = b"volume:" + name.encode()
    path += b"\0" * (len(path) % 2)
    record += struct.pack(">HH", 2, len(path)) + path + struct.pack(">HH", 0xFFFF, 0)
    alias = struct.pack(">I4sI", 12 + len(record), b"alis", 0) + record
    honest = encode(chirp(0.5), 16_000, "mov", "pcm_s16le")
    return rebuilt(honest, {b"dref": struct.pack(">II", 0, 1) + alias})


SIGNATURES = {
    **{"wav": b"RIFF\0\0\0\0WAVE", "avi": b"RIFF\0\0\0\0AVI ", "aiff": b"FORM\0\0\0\0AIFF", "au": b".snd\0\0\0\x18"},
    **{"caf": b"caff\0\1\0\0", "flv": b"FLV\1\5\0\0\0\x09", "amr": b"#!AMR\n", "flac": b"fLaC", "ogg": b"OggS"},
    "w64": bytes.fromhex("726966662e91cf11a5d628db04c10000"),
    "asf": bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c"),
    **{"ac3": b"\x0b\x77\0\0\0\x40", "eac3": b"\x0b\x77\0\0\0\x80", "matroska": b"\x1a\x45\xdf\xa3"},
    **{"mov": b"\0\0\0\x08skip", "mpegts": (b"G" + bytes(187)) * 8, "gsm": (b"\xd2" + bytes(32)) * 80},
    **{"mp3": b"\xff\xfb\x90\0", "aac": b"\xff\xf1\x50\x80"},
}
"""First bytes by which a file of each format is recognized, by FFmpeg's name for the format."""
