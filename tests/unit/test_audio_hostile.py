"""Hostile and damaged files: playlists, garbage, wrong headers, truncation, decompression bombs."""

from __future__ import annotations

import io
import os
import struct
import threading
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import av
import av.error
import numpy as np
import pytest

from stt_server.audio import SAMPLE_RATE, decode
from stt_server.audio.codecs import DEMUXERS
from stt_server.audio.signatures import sniff
from stt_server.errors import AudioTooLong, EmptyAudio, InvalidArgument, SttError, UnsupportedAudio
from stt_server.testing.audio_samples import CONTAINER, FloatArray, chirp, encode, likeness, silence, wav, wav_header
from stt_server.testing.hostile_files import (
    SIGNATURES,
    mov_alias,
    mov_elsewhere,
    mp4_that_goes_round,
    playlists,
    rebuilt,
    silent_film,
)

SOURCE = chirp(4.0)
RANDOM = np.random.default_rng(0)


def decoded(data: bytes, max_seconds: float = 60) -> FloatArray:
    return decode(data, CONTAINER, max_seconds=max_seconds)


def damaged(data: bytes, length: int = 300) -> bytes:
    """Replace `length` bytes in the middle of `data` with noise."""
    middle = len(data) // 2
    return data[:middle] + np.random.default_rng(0).bytes(length) + data[middle + length :]


# --- no file on the server is opened ------------------------------------------------------------------------------


class Canary:
    """A named pipe that detects being opened: its writer blocks until there is a reader."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self._path = path
        self.opened = threading.Event()
        self._closing = False
        self._thread = threading.Thread(target=self._wait_for_reader, daemon=True)
        self._thread.start()

    def _wait_for_reader(self) -> None:
        os.close(os.open(self._path, os.O_WRONLY))
        if not self._closing:
            self.opened.set()

    def close(self) -> None:
        self._closing = True
        reader = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK)
        self._thread.join()
        os.close(reader)


PLAYLISTS = playlists("canary.wav")


def test_canary_detects_an_unrestricted_ffmpeg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    canary = Canary(tmp_path / "canary.wav")
    with pytest.raises(av.error.FFmpegError):
        av.open(io.BytesIO(PLAYLISTS[0]))
    assert canary.opened.wait(10)
    canary._thread.join()


@pytest.mark.parametrize("data", PLAYLISTS, ids=["ffconcat", "m3u8", "m3u8 after a tag", "mpd", "sdp"])
def test_playlist_is_rejected_and_opens_nothing(data: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    canary = Canary(tmp_path / "canary.wav")
    try:
        with pytest.raises(UnsupportedAudio):
            decoded(data)
        assert not canary.opened.is_set()
    finally:
        canary.close()


@pytest.mark.parametrize("name", SIGNATURES)
def test_playlist_behind_a_signature_opens_nothing(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    canary = Canary(tmp_path / "canary.wav")
    try:
        for playlist in PLAYLISTS:
            assert sniff(SIGNATURES[name] + playlist) == name
            with suppress(SttError):
                decoded(SIGNATURES[name] + playlist)
        assert not canary.opened.is_set()
    finally:
        canary.close()


def test_canary_detects_a_followed_alias(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    canary = Canary(tmp_path / "canary.wav")
    with suppress(av.error.FFmpegError), av.open(io.BytesIO(mov_alias("canary.wav")), options={"enable_drefs": "1"}):
        pass
    assert canary.opened.wait(10)
    canary._thread.join()


@pytest.mark.parametrize("make", [mov_alias, mov_elsewhere])
def test_film_with_its_sound_in_another_file_opens_nothing(
    make: Callable[[str], bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    canary = Canary(tmp_path / "canary.wav")
    try:
        for name in ("canary.wav", str(tmp_path / "canary.wav")):
            with suppress(SttError):
                decoded(make(name))
        assert not canary.opened.is_set()
    finally:
        canary.close()


def test_every_demuxer_has_a_signature() -> None:
    assert set(SIGNATURES) == set(DEMUXERS)


# --- not audio, or too little of it -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        b"\x89PNG\r\n\x1a\n" + bytes(200),
        b"\xff\xd8\xff\xe0" + bytes(200),
        b"%PDF-1.7\n",
        b"PK\x03\x04" + bytes(100),
        b"hello",
        "text with a byte order mark".encode("utf-16"),
        b"\xff",
        bytes(1000),
        b"RIFF\0\0\0\0WEBP" + bytes(200),
        b"FORM\0\0\0\0ILBM" + bytes(200),
        b"\x06\x0e\x2b\x34\x02\x05\x01\x01\x0d\x01\x02\x01\x01\x02" + bytes(2000),  # MXF
        b"\0\0\1\xba" + bytes(2000),  # MPEG program stream
        b"I am free to skip it. " * 100,
        "\u041c\u044b \u0433\u043e\u0432\u043e\u0440\u0438\u043c. ".encode() * 100,  # many bytes with 1101 first
        bytes(100_000) + b"x" * 20_000,
        RANDOM.bytes(100_000),
    ],
)
def test_other_files_never_reach_ffmpeg(data: bytes) -> None:
    assert sniff(data) is None
    with pytest.raises(UnsupportedAudio, match="WAV, FLAC, MP3"):
        decoded(data)


# Any bytes are frames of AMR.
@pytest.mark.parametrize(
    "magic",
    [
        *(signature for name, signature in SIGNATURES.items() if name not in ("amr", "gsm")),
        b"RIFX\0\0\0\0WAVE",
        b"FORM\0\0\0\0AIFC",
        b"\0\0\0\x18ftypM4A ",
        b"\0\0\0\x08wide\0\0\0\x10mdat",
        b"ID3\x04\0\0\0\0\0\0",
        b"ID3",
    ],
)
@pytest.mark.parametrize("rest", [b"", bytes(2000), b"x" * 2000, RANDOM.bytes(20_000)])
def test_garbage_after_a_valid_magic_is_rejected_without_internals(magic: bytes, rest: bytes) -> None:
    with pytest.raises((UnsupportedAudio, EmptyAudio, InvalidArgument)) as rejected:
        decoded(magic + rest)
    assert "Errno" not in rejected.value.message
    assert "Invalid data" not in rejected.value.message


@pytest.mark.parametrize("seed", range(80))
def test_damaged_file_gives_audio_or_a_domain_error(seed: int) -> None:
    kinds = [
        *(("wav", "pcm_s16le"), ("flac", "flac"), ("ogg", "libopus"), ("ipod", "aac"), ("webm", "libopus")),
        *(("aiff", "pcm_s16be"), ("caf", "alac"), ("mpegts", "aac"), ("avi", "libmp3lame"), ("eac3", "eac3")),
    ]
    container, codec = kinds[seed % len(kinds)]
    rng = np.random.default_rng(seed)
    data = bytearray(encode(chirp(0.5, 48_000), 48_000, container, codec))
    for place in rng.integers(0, len(data), 20):
        data[place] = rng.integers(256)
    try:
        audio = decoded(bytes(data))
    except SttError:
        return
    assert np.isfinite(audio).all()


@pytest.mark.parametrize("data", [b"", wav_header(SAMPLE_RATE, 1, 0)], ids=["no bytes", "header only"])
def test_file_without_samples_is_empty(data: bytes) -> None:
    with pytest.raises(EmptyAudio):
        decoded(data)


def test_file_without_an_audio_stream_is_rejected() -> None:
    with pytest.raises(UnsupportedAudio, match="no audio stream"):
        decoded(silent_film())


def test_codec_not_on_the_list_is_rejected() -> None:
    with pytest.raises(UnsupportedAudio, match="codec"):
        decoded(encode(chirp(1.0, 48_000), 48_000, "matroska", "tta"))


@pytest.mark.parametrize("rate", [0, 1, 8, 3_999, 192_001, 2**31, 2**32 - 1])
def test_sample_rate_out_of_range_is_rejected(rate: int) -> None:
    with pytest.raises(InvalidArgument, match=rf"sample rate is {rate} Hz; it must be 4000 to 192000 Hz"):
        decoded(wav_header(rate, 1, 40_000) + bytes(40_000))


def test_sample_rate_out_of_range_in_another_container_is_rejected() -> None:
    data = encode(SOURCE, SAMPLE_RATE, "mov", "pcm_s16le")
    place = data.index(struct.pack(">I", SAMPLE_RATE << 16), data.index(b"stsd"))
    absurd = data[:place] + struct.pack(">I", 8 << 16) + data[place + 4 :]
    with pytest.raises(InvalidArgument, match="sample rate is"):
        decoded(absurd)


@pytest.mark.parametrize("channels", [0, 9, 255])
def test_channels_out_of_range_are_rejected(channels: int) -> None:
    with pytest.raises(InvalidArgument, match=rf"{channels} channels; it must have 1 to 8"):
        decoded(wav_header(SAMPLE_RATE, channels, 40_000) + bytes(40_000))


# --- damaged but usable ------------------------------------------------------------------------------------------

STREAMS = [
    ("wav", "pcm_s16le"),
    ("flac", "flac"),
    ("mp3", "libmp3lame"),
    ("ogg", "libopus"),
    ("webm", "libopus"),
    ("adts", "aac"),
]


@pytest.mark.parametrize(("container", "codec"), STREAMS)
def test_truncated_file_gives_its_remaining_audio(container: str, codec: str) -> None:
    data = encode(chirp(4.0, 48_000), 48_000, container, codec)
    audio = decoded(data[: len(data) * 3 // 4])
    seconds = len(audio) / SAMPLE_RATE
    assert 2.0 < seconds < 3.6
    assert likeness(audio, SOURCE[: len(audio)])[0] > 0.95


def test_wav_cut_inside_a_sample_loses_at_most_a_packet() -> None:
    """The FFmpeg of PyAV 18 loses only that sample; that of PyAV 17, used with Python 3.10, its packet."""
    data = wav_header(SAMPLE_RATE, 1, 2 * len(SOURCE)) + (SOURCE * 32767).astype("<i2").tobytes()
    assert 1 <= len(SOURCE) - len(decoded(data[:-1])) <= 1024


@pytest.mark.parametrize(("container", "codec"), STREAMS[1:])
def test_audio_around_damage_is_kept(container: str, codec: str) -> None:
    long = chirp(20.0, 48_000)
    audio = decoded(damaged(encode(long, 48_000, container, codec)))
    source = chirp(20.0)
    assert len(audio) > 0.7 * len(source)
    head, tail = 6 * SAMPLE_RATE, 4 * SAMPLE_RATE
    assert likeness(audio[:head], source[:head])[0] > 0.95
    assert likeness(audio[-tail:], source[-tail:])[0] > 0.95


def test_file_in_which_nothing_decodes_is_rejected() -> None:
    data = encode(SOURCE, SAMPLE_RATE, "ipod", "aac")
    size = struct.unpack(">I", data[data.index(b"mdat") - 4 :][:4])[0] - 8
    filler = rebuilt(data, {b"mdat": b"\xff" * size})
    assert len(filler) == len(data)
    with pytest.raises(UnsupportedAudio, match="nothing in the file can be decoded"):
        decoded(filler)


# --- small files with long or endless audio ------------------------------------------------------------------------


def peak_memory_until_too_long(data: bytes, max_seconds: float) -> int:
    """Peak bytes allocated by Python and NumPy until the file is rejected as too long."""
    tracemalloc.start()
    try:
        with pytest.raises(AudioTooLong, match=f"limit of {max_seconds:g} seconds"):
            decoded(data, max_seconds)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("container", "codec"), [("flac", "flac"), ("ogg", "libopus"), ("matroska", "flac")])
def test_decoding_stops_at_the_limit_with_bounded_memory(container: str, codec: str) -> None:
    bomb = encode(silence(600), SAMPLE_RATE, container, codec)
    whole = 600 * SAMPLE_RATE * 4
    assert len(bomb) < whole / 50
    limit = 10 * SAMPLE_RATE * 4
    assert peak_memory_until_too_long(bomb, 10) < 2 * limit + (1 << 20) < whole / 10


def test_upsampled_audio_is_stopped_at_the_limit() -> None:
    samples = bytes(2 * 4_000 * 600)
    assert peak_memory_until_too_long(wav_header(4_000, 1, len(samples)) + samples, 10) < 3 << 20


@pytest.mark.parametrize("rate", [16_000, 44_100])
@pytest.mark.parametrize("codec", ["pcm_s16le", "flac"])
def test_recording_of_exactly_the_limit_is_accepted(rate: int, codec: str) -> None:
    container = "flac" if codec == "flac" else "wav"
    assert len(decoded(encode(chirp(4.0, rate), rate, container, codec), 4.0)) == 4 * SAMPLE_RATE
    with pytest.raises(AudioTooLong):
        decoded(encode(chirp(4.2, rate), rate, container, codec), 4.0)


def test_index_with_repeated_references_is_rejected() -> None:
    with pytest.raises(UnsupportedAudio, match="index is corrupt"):
        decoded(mp4_that_goes_round())


def test_wav_with_a_smaller_data_size_ends_there() -> None:
    data = wav(SOURCE, SAMPLE_RATE)
    assert len(decoded(data + b"junk" * 1000)) == len(SOURCE)
