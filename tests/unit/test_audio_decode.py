"""Decoding every supported format to mono at 16 kHz."""

from __future__ import annotations

import io
import struct
from concurrent.futures import ThreadPoolExecutor

import av
import numpy as np
import pytest

from stt_server.audio import SAMPLE_RATE, AudioFormat, decode
from stt_server.audio.formats import Encoding
from stt_server.audio.headerless import MULAW_TO_LINEAR
from stt_server.errors import AudioTooLong, EmptyAudio, InvalidArgument
from stt_server.testing.audio_samples import CONTAINER, FloatArray, chirp, clip, encode, likeness, wav, wav_header

SECONDS = 2.0
SOURCE = chirp(SECONDS)


def decoded(data: bytes, format: AudioFormat = CONTAINER, max_seconds: float = 60) -> FloatArray:
    audio = decode(data, format, max_seconds=max_seconds)
    assert audio.dtype == np.float32
    assert audio.ndim == 1
    return audio


@pytest.mark.parametrize(
    ("container", "codec", "rate"),
    [
        *(("wav", f"pcm_{kind}", 16_000) for kind in ("u8", "s16le", "s24le", "s32le", "f32le", "f64le")),
        ("wav", "pcm_mulaw", 8_000),
        ("wav", "pcm_alaw", 8_000),
        ("wav", "adpcm_ms", 22_050),
        ("wav", "adpcm_ima_wav", 22_050),
        ("flac", "flac", 44_100),
        ("mp3", "libmp3lame", 44_100),
        ("ogg", "libopus", 48_000),
        ("ogg", "flac", 44_100),
        ("ipod", "aac", 44_100),
        ("mp4", "alac", 44_100),
        ("mov", "pcm_s16le", 48_000),
        ("webm", "libopus", 48_000),
        ("matroska", "flac", 44_100),
    ],
)
def test_each_format_decodes_to_its_source(container: str, codec: str, rate: int) -> None:
    audio = decoded(encode(chirp(SECONDS, rate), rate, container, codec))
    alike, lag = likeness(audio, SOURCE)
    assert alike > 0.995
    assert lag == 0
    assert 0 <= len(audio) - len(SOURCE) < 0.05 * SAMPLE_RATE  # codecs fill up their last frame
    assert np.std(audio[: len(SOURCE)]) == pytest.approx(np.std(SOURCE), rel=0.06)  # MP3 is a little softer


def test_vorbis_is_decoded() -> None:
    stereo = np.tile(chirp(SECONDS, 44_100), (2, 1))
    audio = decoded(encode(stereo, 44_100, "ogg", "vorbis", layout="stereo"))
    alike, lag = likeness(audio, SOURCE)
    assert alike > 0.99
    assert abs(lag) < 0.05 * SAMPLE_RATE


@pytest.mark.parametrize("codec", ["aac", "mp2"])
def test_raw_streams_are_decoded_with_their_encoders_delay(codec: str) -> None:
    container = "adts" if codec == "aac" else "mp2"
    alike, lag = likeness(decoded(encode(chirp(SECONDS, 44_100), 44_100, container, codec)), SOURCE)
    assert alike > 0.97
    assert 0 <= lag < 0.03 * SAMPLE_RATE


def test_rf64_is_decoded() -> None:
    data = encode(SOURCE, SAMPLE_RATE, "wav", "pcm_s16le", muxer={"rf64": "always"})
    assert data.startswith(b"RF64")
    assert likeness(decoded(data), SOURCE)[0] > 0.999


def test_wav_written_to_a_pipe_extends_to_its_end() -> None:
    data = wav_header(SAMPLE_RATE, 1, 0xFFFFFFFF) + (SOURCE * 32767).astype("<i2").tobytes()
    assert len(decoded(data)) == len(SOURCE)


@pytest.mark.parametrize("rate", [4_000, 8_000, 11_025, 22_050, 44_100, 48_000, 96_000, 192_000])
def test_every_rate_keeps_timing_and_the_last_milliseconds(rate: int) -> None:
    audio = decoded(wav(chirp(SECONDS, rate, high=1000), rate))
    source = chirp(SECONDS, high=1000)
    assert abs(len(audio) - len(source)) <= 2
    alike, lag = likeness(audio, source)
    assert (alike > 0.999, lag) == (True, 0)
    assert np.abs(audio[-80:]).max() > 0.2


def test_downsampling_does_not_alias() -> None:
    high = chirp(SECONDS, 48_000, low=10_000, high=20_000)
    assert np.abs(decoded(wav(high, 48_000))[800:-800]).max() < 0.01


@pytest.mark.parametrize("layout", ["mono", "stereo", "5.1", "7.1"])
def test_channels_are_averaged(layout: str) -> None:
    channels = av.AudioLayout(layout).nb_channels
    parts = np.stack([SOURCE * (0.5 + index / 8) for index in range(channels)])
    audio = decoded(wav(parts, SAMPLE_RATE, codec="pcm_f32le", layout=layout))
    np.testing.assert_allclose(audio, parts.mean(axis=0), atol=1e-5)


@pytest.mark.parametrize("layout", ["mono", "stereo", "5.1", "7.1(wide)"])
def test_planar_channels_are_averaged(layout: str) -> None:
    channels = av.AudioLayout(layout).nb_channels
    parts = np.stack([SOURCE * (0.5 + index / 8) for index in range(channels)])
    audio = decoded(encode(parts, SAMPLE_RATE, "ipod", "alac", layout=layout))
    np.testing.assert_allclose(audio, parts.mean(axis=0), atol=1e-4)


def test_channels_without_a_named_layout_are_averaged() -> None:
    parts = np.tile((SOURCE * 32767).astype("<i2"), (5, 1))
    audio = decoded(wav_header(SAMPLE_RATE, 5, parts.size * 2) + parts.T.tobytes())
    assert likeness(audio, SOURCE)[0] > 0.999


def test_speech_on_one_of_two_channels_is_kept() -> None:
    stereo = np.stack([np.zeros_like(SOURCE), SOURCE])
    audio = decoded(encode(stereo, SAMPLE_RATE, "flac", "flac", layout="stereo"))
    np.testing.assert_allclose(audio, SOURCE / 2, atol=1e-4)


def test_lossy_codec_keeps_the_timing_of_speech() -> None:
    speech = clip("en/quick_brown_fox")
    alike, lag = likeness(decoded(encode(speech, SAMPLE_RATE, "ogg", "libopus")), speech)
    assert alike > 0.9
    assert abs(lag) <= 8


def test_nan_and_infinite_samples_become_silence() -> None:
    samples = np.full(8000, 0.25, dtype="<f4")
    samples[100:110] = np.nan
    samples[200:205], samples[205:210] = np.inf, -np.inf
    for rate in (SAMPLE_RATE, 8_000):
        audio = decoded(wav_header(rate, 1, samples.nbytes, bits=32, tag=3) + samples.tobytes())
        assert np.isfinite(audio).all()
        assert np.abs(audio).max() < 0.4
    assert audio[-100:] == pytest.approx(0.25, abs=0.02)


def test_tags_in_any_encoding_are_ignored() -> None:
    data = encode(SOURCE, SAMPLE_RATE, "mp3", "libmp3lame", title="naïve")
    latin1 = data.replace("naïve".encode(), b"na\xefve!")
    assert latin1 != data
    assert likeness(decoded(latin1), SOURCE)[0] > 0.99


def test_audio_of_a_video_is_decoded() -> None:
    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as target:
        video = target.add_stream("mpeg4", rate=10, width=32, height=32, pix_fmt="yuv420p")
        audio = target.add_stream("aac", rate=16_000, layout="mono")
        for _ in range(3):
            target.mux(video.encode(av.VideoFrame(32, 32, "yuv420p")))
        target.mux(video.encode(None))
        frame = av.AudioFrame.from_ndarray(SOURCE[np.newaxis], format="fltp", layout="mono")
        frame.sample_rate, frame.pts = SAMPLE_RATE, 0
        frames = av.AudioResampler("fltp", "mono", SAMPLE_RATE, frame_size=1024).resample(frame)
        for part in frames:
            target.mux(audio.encode(part))
        target.mux(audio.encode(None))
    assert likeness(decoded(out.getvalue()), SOURCE)[0] > 0.99


# --- headerless ---------------------------------------------------------------------------------------------------


def linear16(rate: int = SAMPLE_RATE, channels: int = 1) -> AudioFormat:
    return AudioFormat("linear16", rate, channels)


@pytest.mark.parametrize("rate", [4_000, 8_000, 16_000, 44_100, 192_000])
def test_linear16_at_every_rate(rate: int) -> None:
    audio = decoded((chirp(SECONDS, rate, high=1000) * 32767).astype("<i2").tobytes(), linear16(rate))
    alike, lag = likeness(audio, chirp(SECONDS, high=1000))
    assert (alike > 0.999, lag) == (True, 0)
    assert abs(len(audio) - SECONDS * SAMPLE_RATE) <= 2


def test_linear16_full_scale_is_one() -> None:
    audio = decoded(struct.pack("<4h", 32767, -32768, 0, 16384), linear16())
    np.testing.assert_allclose(audio, [32767 / 32768, -1, 0, 0.5])


@pytest.mark.parametrize("channels", [1, 2, 6, 8])
def test_linear16_channels_are_interleaved_and_averaged(channels: int) -> None:
    parts = np.stack([np.arange(100) * (index + 1) for index in range(channels)]).astype("<i2")
    audio = decoded(parts.T.tobytes(), linear16(channels=channels))
    np.testing.assert_allclose(audio, parts.mean(axis=0) / 32768, atol=1e-6)


@pytest.mark.parametrize(
    ("code", "value"),
    # Decision values of ITU-T G.711 table 2a, 14 bits, times 4.
    [
        (0x80, 32124),
        (0x00, -32124),
        (0x8F, 16764),
        (0x9F, 8316),
        (0x0F, -16764),
        (0xFE, 8),
        (0xFF, 0),
        (0x7F, 0),
    ],
)
def test_mulaw_codes_have_their_itu_values(code: int, value: int) -> None:
    assert MULAW_TO_LINEAR[code] == value
    assert decoded(bytes([code]), AudioFormat("mulaw", SAMPLE_RATE))[0] == pytest.approx(value / 32768)


@pytest.mark.parametrize(("encoding", "tag"), [("alaw", 6), ("mulaw", 7)])
def test_all_256_codes_agree_with_another_decoder(encoding: Encoding, tag: int) -> None:
    codes = bytes(range(256))
    theirs = decoded(wav_header(SAMPLE_RATE, 1, 256, bits=8, tag=tag) + codes)
    np.testing.assert_array_equal(decoded(codes, AudioFormat(encoding, SAMPLE_RATE)), theirs)


@pytest.mark.parametrize("encoding", ["alaw", "mulaw"])
def test_companded_telephone_audio_is_decoded(encoding: Encoding) -> None:
    telephone = wav(chirp(SECONDS, 8_000), 8_000, codec=f"pcm_{encoding}")
    raw = telephone[telephone.index(b"data") + 8 :]
    assert likeness(decoded(raw, AudioFormat(encoding, 8_000)), SOURCE)[0] > 0.999


@pytest.mark.parametrize("encoding", ["linear16", "mulaw", "alaw"])
@pytest.mark.parametrize("rate", [-1, 0, 8, 3_999, 192_001])
def test_headerless_rate_out_of_range_is_rejected(encoding: str, rate: int) -> None:
    with pytest.raises(InvalidArgument, match=r"sample_rate_hertz must be 4000 to 192000"):
        decoded(bytes(80), AudioFormat(encoding, rate))  # type: ignore[arg-type]


@pytest.mark.parametrize("channels", [-1, 0, 9])
def test_headerless_channels_out_of_range_are_rejected(channels: int) -> None:
    with pytest.raises(InvalidArgument, match=r"channel_count must be 1 to 8"):
        decoded(bytes(80), linear16(channels=channels))


@pytest.mark.parametrize(("channels", "length"), [(1, 3), (2, 6), (8, 24)])
def test_headerless_partial_samples_are_rejected(channels: int, length: int) -> None:
    with pytest.raises(InvalidArgument, match=rf"multiple of {2 * channels} bytes"):
        decoded(bytes(length), linear16(channels=channels))


@pytest.mark.parametrize("encoding", ["linear16", "mulaw"])
def test_headerless_audio_of_0_bytes_is_empty(encoding: str) -> None:
    with pytest.raises(EmptyAudio):
        decoded(b"", AudioFormat(encoding, 8_000))  # type: ignore[arg-type]


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100])
def test_headerless_audio_is_limited_in_length(rate: int) -> None:
    assert len(decoded(bytes(2 * rate), linear16(rate), max_seconds=1)) == pytest.approx(SAMPLE_RATE, abs=2)
    with pytest.raises(AudioTooLong, match="limit of 1 seconds"):
        decoded(bytes(2 * rate + 2), linear16(rate), max_seconds=1)


def test_decoding_is_thread_safe() -> None:
    files = [
        encode(chirp(1.0 + index / 10, rate), rate, container, codec)
        for index in range(4)
        for container, codec, rate in (("flac", "flac", 44_100), ("ogg", "libopus", 48_000))
    ]
    alone = [decoded(data) for data in files]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(decoded, files * 3))
    for index, audio in enumerate(together):
        np.testing.assert_array_equal(audio, alone[index % len(files)])
