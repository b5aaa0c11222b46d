"""The parser for plain WAV files, compared with FFmpeg."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from stt_server.audio import SAMPLE_RATE, decode, decode_plain
from stt_server.audio.container import decode_container
from stt_server.audio.mono import MonoSink, SampleBuffer
from stt_server.audio.wav import read_wav
from stt_server.errors import AudioTooLong, EmptyAudio, InvalidArgument, SttError
from stt_server.testing.audio_samples import (
    CONTAINER,
    FloatArray,
    chirp,
    chunk,
    encode,
    extensible,
    form,
    riff,
    wav,
    wav_header,
)

SOURCE = chirp(0.5)
PCM = (SOURCE * 32767).astype("<i2").tobytes()


def plain(data: bytes, max_seconds: float = 60) -> FloatArray:
    audio = decode_plain(data, CONTAINER, max_seconds=max_seconds)
    assert audio is not None, "left to FFmpeg"
    return audio[0]


def by_ffmpeg(data: bytes) -> FloatArray:
    recording = SampleBuffer()
    decode_container(data, MonoSink(60, recording.add))
    return recording.samples()


@pytest.mark.parametrize("codec", [f"pcm_{kind}" for kind in ("u8", "s16le", "s24le", "s32le", "f32le", "f64le")])
@pytest.mark.parametrize("layout", ["mono", "stereo", "7.1"])
@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100])
def test_result_equals_ffmpegs(codec: str, layout: str, rate: int) -> None:
    channels = {"mono": 1, "stereo": 2, "7.1": 8}[layout]
    samples = np.stack([chirp(0.5, rate, high=1000) * (1 - index / 10) for index in range(channels)])
    data = wav(samples, rate, codec=codec, layout=layout)
    ours, theirs = plain(data), by_ffmpeg(data)
    assert len(ours) == len(theirs)
    np.testing.assert_allclose(ours, theirs, atol=2e-6)


@pytest.mark.parametrize(
    "data",
    [
        riff(chunk(b"fmt ", form()), chunk(b"data", PCM)),
        riff(
            chunk(b"LIST", b"odd"),
            chunk(b"fmt ", form()),
            chunk(b"fact", struct.pack("<I", len(SOURCE))),
            chunk(b"data", PCM),
        ),
        riff(chunk(b"fmt ", form() + b"\0\0"), chunk(b"data", PCM)),
        riff(chunk(b"fmt ", extensible(1, 16, 16)), chunk(b"data", PCM)),
        riff(chunk(b"fmt ", form()), chunk(b"data", PCM, size=0)),
        riff(chunk(b"fmt ", form()), chunk(b"data", PCM, size=0xFFFFFFFF)),
        riff(chunk(b"fmt ", form()), chunk(b"data", PCM, size=0x7FFFFFFF)),
        riff(chunk(b"fmt ", form()), chunk(b"data", PCM), chunk(b"LIST", b"INFO" * 100)),
        riff(chunk(b"fmt ", form()), chunk(b"data", PCM), chunk(b"data", b"second" * 10)),
        b"RIFF\0\0\0\0" + riff(chunk(b"fmt ", form()), chunk(b"data", PCM))[8:],
        riff(chunk(b"fmt ", form()), chunk(b"data", PCM)) + b"after the end" * 9,
        riff(chunk(b"fmt ", form(bits=12, block=2)), chunk(b"data", PCM)),
    ],
    ids=[
        *("simple", "odd chunks", "a longer fmt chunk", "extensible", "size 0", "unknown size", "size beyond the end"),
        *("a chunk after", "two data chunks", "RIFF size 0", "bytes after", "12 bits"),
    ],
)
def test_samples_are_found_despite_wrong_sizes(data: bytes) -> None:
    np.testing.assert_allclose(plain(data)[: len(SOURCE)], SOURCE, atol=1e-4)


def test_smaller_data_size_is_respected() -> None:
    assert len(plain(riff(chunk(b"fmt ", form()), chunk(b"data", PCM, size=2000)))) == 1000


def test_rf64_size_is_respected() -> None:
    data = encode(SOURCE, SAMPLE_RATE, "wav", "pcm_s16le", muxer={"rf64": "always"}) + b"junk" * 100
    assert len(plain(data)) == len(SOURCE)


def test_24_bits_in_32_keep_their_scale() -> None:
    samples = (SOURCE * (2**31 - 1)).astype("<i4") & ~0xFF
    data = riff(chunk(b"fmt ", extensible(1, 32, 24)), chunk(b"data", samples.astype("<i4").tobytes()))
    np.testing.assert_allclose(plain(data), SOURCE, atol=1e-6)


@pytest.mark.parametrize("cut", range(1, 12))
def test_truncated_file_loses_only_its_last_frame(cut: int) -> None:
    samples = np.tile(SOURCE, (2, 1)).T.astype("<f4").tobytes()
    audio = plain(riff(chunk(b"fmt ", form(3, 2, 32)), chunk(b"data", samples))[:-cut])
    assert len(audio) == len(SOURCE) - -(-cut // 8)


@pytest.mark.parametrize(
    "data",
    [
        riff(),
        riff(chunk(b"fmt ", form())),
        riff(chunk(b"data", PCM)),
        riff(chunk(b"fmt ", form()[:14]), chunk(b"data", PCM)),
        riff(chunk(b"fmt ", form(block=7)), chunk(b"data", PCM)),
        riff(chunk(b"fmt ", form(bits=0)), chunk(b"data", PCM)),
        riff(chunk(b"fmt ", form(bits=64)), chunk(b"data", PCM)),
        riff(chunk(b"fmt ", form(3, bits=16)), chunk(b"data", PCM)),
        riff(chunk(b"fmt ", form(7, bits=8)), chunk(b"data", PCM)),
        riff(chunk(b"fmt ", form(0xFFFE) + bytes(24)), chunk(b"data", PCM)),
        riff(chunk(b"LIST", b"x", size=0xFFFFFFF0), chunk(b"fmt ", form()), chunk(b"data", PCM)),
        riff(*[chunk(b"JUNK", b"")] * 100_000, chunk(b"fmt ", form()), chunk(b"data", PCM)),
    ],
)
def test_other_files_are_left_to_ffmpeg(data: bytes) -> None:
    assert read_wav(data) is None


@pytest.mark.parametrize("place", ["first", "later"])
def test_rate_and_channels_are_checked(place: str) -> None:
    before = [] if place == "first" else [chunk(b"LIST", b"INFO")]
    for invalid in (form(rate=8), form(rate=2**31), form(7, rate=192_001, bits=8)):
        with pytest.raises(InvalidArgument, match="sample rate is"):
            read_wav(riff(*before, chunk(b"fmt ", invalid), chunk(b"data", PCM)))
    with pytest.raises(InvalidArgument, match="255 channels"):
        read_wav(riff(*before, chunk(b"fmt ", form(channels=255)), chunk(b"data", PCM)))


@pytest.mark.parametrize("samples", [b"", b"\0"])
def test_file_without_whole_samples_is_empty(samples: bytes) -> None:
    with pytest.raises(EmptyAudio):
        plain(riff(chunk(b"fmt ", form()), chunk(b"data", samples)))


def test_too_long_file_is_rejected_before_conversion() -> None:
    at_limit = wav_header(8_000, 1, 2 * 16_000) + bytes(2 * 16_000)
    assert len(plain(at_limit, max_seconds=2)) == pytest.approx(2 * SAMPLE_RATE, abs=2)
    with pytest.raises(AudioTooLong, match="limit of 2 seconds"):
        plain(wav_header(8_000, 1, 0) + bytes(2 * 18_000), max_seconds=2)


@pytest.mark.parametrize("seed", range(200))
def test_damaged_header_gives_audio_or_a_domain_error(seed: int) -> None:
    rng = np.random.default_rng(seed)
    data = bytearray(riff(chunk(b"LIST", b"x"), chunk(b"fmt ", extensible(1, 16, 16)), chunk(b"data", PCM[:400])))
    for _ in range(rng.integers(1, 6)):
        data[rng.integers(12, 84)] = rng.integers(256)
    try:
        audio = decode(bytes(data), CONTAINER, max_seconds=5)
    except SttError:
        return
    assert np.isfinite(audio).all()
