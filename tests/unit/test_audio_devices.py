"""Formats of phones, cameras, telephone systems and studios, and files that begin in an odd place."""

from __future__ import annotations

import io
import shutil
import struct
import subprocess
from pathlib import Path

import av
import numpy as np
import pytest

from stt_server.audio import SAMPLE_RATE, decode
from stt_server.audio.codecs import DECODERS, DEMUXERS
from stt_server.audio.signatures import Signature, detect
from stt_server.testing.audio_samples import CONTAINER, FloatArray, chirp, clip, encode, likeness, silence
from stt_server.testing.hostile_files import rebuilt
from tests.support.needs import lacking

SECONDS = 2.0
SOURCE = chirp(SECONDS)


def decoded(data: bytes) -> FloatArray:
    return decode(data, CONTAINER, max_seconds=60)


def sounds_like(audio: FloatArray, source: FloatArray = SOURCE, at_least: float = 0.98) -> bool:
    return likeness(audio, source)[0] > at_least


@pytest.mark.parametrize(
    ("container", "codec", "rate", "demuxer"),
    [
        *(("aiff", codec, 16_000, "aiff") for codec in ("pcm_s16be", "pcm_s24be", "pcm_s16le", "pcm_mulaw")),
        ("aiff", "adpcm_ima_qt", 22_050, "aiff"),
        *(("au", codec, 8_000, "au") for codec in ("pcm_s16be", "pcm_mulaw", "pcm_alaw", "pcm_s8", "g726le")),
        ("au", "g722", 16_000, "au"),
        *(("caf", codec, 44_100, "caf") for codec in ("pcm_s16le", "pcm_f32be", "alac", "adpcm_ima_qt")),
        *(("w64", codec, 44_100, "w64") for codec in ("pcm_s16le", "pcm_f32le")),
        *(("mov", codec, 22_050, "mov") for codec in ("pcm_u8", "pcm_s8", "pcm_s24be", "adpcm_ima_qt", "pcm_alaw")),
        ("ac3", "ac3", 48_000, "ac3"),
        ("eac3", "eac3", 48_000, "eac3"),
        ("matroska", "ac3", 48_000, "matroska"),
        ("mp4", "eac3", 48_000, "mov"),
        *(("mpegts", codec, 48_000, "mpegts") for codec in ("aac", "mp2", "libmp3lame", "ac3", "eac3", "libopus")),
        *(("flv", codec, 44_100, "flv") for codec in ("aac", "libmp3lame", "pcm_s16le", "adpcm_swf")),
        ("flv", "nellymoser", 16_000, "flv"),
        *(("avi", codec, 44_100, "avi") for codec in ("pcm_s16le", "libmp3lame", "ac3", "adpcm_ms")),
        ("wav", "g722", 16_000, "wav"),
        ("wav", "g726", 8_000, "wav"),
        *(("wav", codec, 44_100, "wav") for codec in ("adpcm_yamaha", "libmp3lame", "ac3")),
    ],
)
def test_each_format_of_a_device_decodes_to_its_source(container: str, codec: str, rate: int, demuxer: str) -> None:
    data = encode(chirp(SECONDS, rate), rate, container, codec)
    assert detect(data) == Signature(demuxer)
    audio = decoded(data)
    assert sounds_like(audio)
    assert len(audio) == pytest.approx(len(SOURCE), abs=0.06 * SAMPLE_RATE)


@pytest.mark.parametrize(
    ("container", "codec", "rate", "bit_rate"),
    [
        ("amr", "libopencore_amrnb", 8_000, 12_200),
        ("3gp", "libopencore_amrnb", 8_000, 12_200),
        ("wav", "g723_1", 8_000, 6_300),
        ("asf", "wmav1", 44_100, 64_000),
        ("asf", "wmav2", 44_100, 64_000),
    ],
)
def test_formats_of_few_bits_decode_to_speech_like_their_source(
    container: str, codec: str, rate: int, bit_rate: int
) -> None:
    speech = clip("en/counting")
    data = encode(resampled(speech, rate), rate, container, codec, bit_rate=bit_rate)
    audio = decoded(data)
    assert sounds_like(audio, speech, 0.7)
    assert len(audio) == pytest.approx(len(speech), abs=0.06 * SAMPLE_RATE)


def resampled(samples: FloatArray, rate: int) -> FloatArray:
    frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
    frame.sample_rate = SAMPLE_RATE
    resampler = av.AudioResampler("fltp", "mono", rate)
    frames = [*resampler.resample(frame), *resampler.resample(None)]
    return np.concatenate([frame.to_ndarray()[0] for frame in frames])


def test_raw_gsm_is_decoded(tmp_path: Path) -> None:
    ffmpeg = shutil.which("ffmpeg")
    if ffmpeg is None:
        lacking("ffmpeg is not installed; raw GSM is not tested")
    data = tmp_path / "speech.gsm"
    speech = clip("en/counting")
    source = encode(speech, SAMPLE_RATE, "wav", "pcm_s16le")
    command = [ffmpeg, "-v", "error", "-i", "-", "-ar", "8000", "-c:a", "libgsm", str(data)]
    subprocess.run(command, input=source, check=True)
    assert detect(data.read_bytes()) == Signature("gsm")
    assert sounds_like(decoded(data.read_bytes()), speech, 0.85)


def test_amr_wideband_is_decoded() -> None:
    """Frames without data, since no free encoder is in PyAV: comfort noise, 20 ms for each byte."""
    assert len(decoded(b"#!AMR-WB\n" + b"\x7c" * 100)) == 2 * SAMPLE_RATE


@pytest.mark.parametrize("size", [192, 204])
def test_transport_stream_with_longer_packets_is_decoded(size: int) -> None:
    packets = encode(chirp(SECONDS, 48_000), 48_000, "mpegts", "ac3")
    before = 4 if size == 192 else 0
    longer = b"".join(
        bytes(before) + packets[at : at + 188] + bytes(size - 188 - before) for at in range(0, len(packets), 188)
    )
    assert sounds_like(decoded(longer))
    assert sounds_like(decoded(longer[100:]))


# --- big-endian WAV ------------------------------------------------------------------------------------------------


def rifx(samples: bytes, bits: int, tag: int = 1) -> bytes:
    fmt = struct.pack(">HHIIHH", tag, 1, SAMPLE_RATE, SAMPLE_RATE * bits // 8, bits // 8, bits)
    chunks = b"WAVEfmt " + struct.pack(">I", 16) + fmt + b"data" + struct.pack(">I", len(samples)) + samples
    return b"RIFX" + struct.pack(">I", len(chunks)) + chunks


def test_big_endian_wav_is_decoded() -> None:
    whole = (SOURCE.astype(np.float64) * 2**31).astype(">i4")
    upper = np.frombuffer(whole.tobytes(), np.uint8).reshape(-1, 4)
    for bits in (16, 24, 32):
        audio = decoded(rifx(upper[:, : bits // 8].tobytes(), bits))
        np.testing.assert_allclose(audio, SOURCE, atol=2.0 ** (1 - bits) + 1e-7)
    np.testing.assert_array_equal(decoded(rifx(SOURCE.astype(">f4").tobytes(), 32, 3)), SOURCE)


def test_big_endian_wav_of_mulaw_is_decoded() -> None:
    wav = encode(SOURCE, SAMPLE_RATE, "wav", "pcm_mulaw")
    assert sounds_like(decoded(rifx(wav[wav.index(b"data") + 8 :], 8, 7)))


# --- odd beginnings ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [b"skip", b"free", b"wide"])
def test_quicktime_without_its_type_is_decoded(kind: bytes) -> None:
    data = encode(chirp(SECONDS, 44_100), 44_100, "mov", "aac")
    assert sounds_like(decoded(data[:4] + kind + data[8:]))


@pytest.mark.parametrize("first", [b"mdat", b"moov"])
def test_quicktime_may_begin_with_its_samples_or_its_index(first: bytes) -> None:
    data = encode(chirp(SECONDS, 44_100), 44_100, "mov", "pcm_s16be")
    index = data[data.index(b"moov") - 4 :]
    index = index[: struct.unpack(">I", index[:4])[0]]
    at = data.index(b"mdat")
    samples = data[at + 4 : at - 4 + struct.unpack(">I", data[at - 4 : at])[0]]
    size = struct.pack(">I", len(samples) + 8)
    moved = 8 if first == b"mdat" else 8 + len(index)
    index = rebuilt(index, {b"stco": struct.pack(">3I", 0, 1, moved), b"stsc": one_chunk(index)})
    boxes = {b"mdat": size + b"mdat" + samples, b"moov": index}
    rest = b"moov" if first == b"mdat" else b"mdat"
    assert sounds_like(decoded(boxes[first] + boxes[rest]))


def one_chunk(index: bytes) -> bytes:
    """A sample-to-chunk table that puts all samples into one chunk."""
    at = index.index(b"stsz")
    count = struct.unpack(">I", index[at + 12 : at + 16])[0]
    return struct.pack(">5I", 0, 1, 1, count, 1)


ODD = [("mp3", "libmp3lame", 44_100), ("mp2", "mp2", 48_000), ("adts", "aac", 44_100), ("mp3", "libmp3lame", 16_000)]


@pytest.mark.parametrize(("container", "codec", "rate"), ODD)
@pytest.mark.parametrize("cut", [1, 101, 301])
def test_stream_that_begins_within_a_frame_is_decoded(container: str, codec: str, rate: int, cut: int) -> None:
    data = bare(container, codec, rate)[cut:]
    audio = decoded(data)
    assert sounds_like(audio[-SAMPLE_RATE:], SOURCE[-SAMPLE_RATE:], 0.9)
    assert len(audio) > 0.9 * len(SOURCE)


@pytest.mark.parametrize(("container", "codec", "rate"), ODD)
@pytest.mark.parametrize("zeros", [1, 700, 100_000])
def test_stream_behind_zeros_is_decoded(container: str, codec: str, rate: int, zeros: int) -> None:
    assert sounds_like(decoded(bytes(zeros) + bare(container, codec, rate)), at_least=0.97)


def test_tagged_mp3_behind_zeros_is_decoded() -> None:
    data = encode(chirp(SECONDS, 44_100), 44_100, "mp3", "libmp3lame", title="title")
    assert data.startswith(b"ID3")
    assert sounds_like(decoded(bytes(1000) + data))


def bare(container: str, codec: str, rate: int) -> bytes:
    """A stream of frames without a tag or a header of its own."""
    plain = {"id3v2_version": "0", "write_xing": "0"} if container == "mp3" else {}
    return encode(chirp(SECONDS, rate), rate, container, codec, muxer=plain)


# --- several streams -----------------------------------------------------------------------------------------------


def film(container: str, tracks: list[tuple[str, FloatArray]], default: int | None = None) -> bytes:
    """A file with a video of 2 s and audio tracks at 48 kHz.

    Args:
        tracks: encoder and samples of each.
        default: index of the track that is marked as the default one.
    """
    out = io.BytesIO()
    with av.open(out, "w", format=container) as target:
        video = target.add_stream("mpeg4", rate=5, width=64, height=64, pix_fmt="yuv420p")
        streams = []
        for index, (codec, _) in enumerate(tracks):
            stream = target.add_stream(codec, rate=48_000, layout="mono")
            assert isinstance(stream, av.AudioStream)
            if default is not None:
                stream.disposition = av.stream.Disposition.default if index == default else av.stream.Disposition(0)
            streams.append(stream)
        for number in range(10):
            picture = av.VideoFrame(64, 64, "yuv420p")
            picture.pts = number
            target.mux(video.encode(picture))
        target.mux(video.encode(None))
        for stream, (_, samples) in zip(streams, tracks):
            frame = av.AudioFrame.from_ndarray(samples[None], format="flt", layout="mono")
            frame.sample_rate, frame.pts = 48_000, 0
            size = stream.codec_context.frame_size or 1024
            resampler = av.AudioResampler(stream.format.name, "mono", 48_000, frame_size=size)
            for part in [*resampler.resample(frame), *resampler.resample(None)]:
                target.mux(stream.encode(part))
            target.mux(stream.encode(None))
    return out.getvalue()


SPEECH = chirp(SECONDS, 48_000)
OTHER = chirp(SECONDS, 48_000, low=2000, high=3000)
SILENT = np.zeros_like(SPEECH)
FAINT = np.random.default_rng(0).standard_normal(len(SPEECH)).astype(np.float32) * 1e-4


@pytest.mark.parametrize("container", ["avi", "matroska", "mp4", "mpegts", "mov"])
def test_audio_of_a_film_is_decoded(container: str) -> None:
    codec = "pcm_s16le" if container in ("avi", "mov") else "aac"
    assert sounds_like(decoded(film(container, [(codec, SPEECH)])))


@pytest.mark.parametrize(
    ("tracks", "default"),
    [
        ([("flac", SPEECH), ("flac", OTHER)], None),
        ([("flac", OTHER), ("flac", SPEECH)], 1),
        ([("flac", SILENT), ("flac", SPEECH)], 0),
        ([("flac", SPEECH), ("flac", SILENT)], 1),
        ([("flac", FAINT), ("flac", SPEECH)], 0),
        ([("flac", SPEECH / 300), ("flac", FAINT)], 0),
        ([("tta", OTHER), ("flac", SPEECH)], 0),
        ([("flac", SILENT), ("tta", OTHER), ("aac", SPEECH)], 0),
    ],
    ids=[
        "first without a default",
        "default",
        "default is silent",
        "second is silent",
        "default is much quieter",
        "quiet, but not much quieter",
        "unknown codec",
        "silent and unknown",
    ],
)
def test_default_stream_is_taken_unless_silent_or_unknown(tracks: list[tuple[str, FloatArray]], default: int) -> None:
    assert sounds_like(decoded(film("matroska", tracks, default)))


def test_first_enabled_track_of_an_mp4_is_taken() -> None:
    assert sounds_like(decoded(film("mp4", [("aac", SPEECH), ("aac", OTHER)])))


def test_file_whose_streams_are_all_silent_gives_silence() -> None:
    audio = decoded(film("matroska", [("flac", SILENT), ("flac", SILENT)]))
    np.testing.assert_array_equal(audio, silence(SECONDS))


# --- the lists stay lists ------------------------------------------------------------------------------------------


def test_no_decoder_is_one_for_pictures() -> None:
    known = {name for name in DECODERS if name in av.codecs_available}
    assert len(known) > 40
    assert {av.Codec(name, "r").type for name in known} == {"audio"}


def test_no_demuxer_is_one_for_playlists_or_devices() -> None:
    refused = {"concat", "hls", "dash", "sdp", "rtsp", "rtp", "mxf", "image2", "lavfi", "tee", "imf", "bluray", "dvd"}
    assert not refused & set(DEMUXERS)
    assert set(DEMUXERS) < {name for names in av.formats_available for name in names.split(",")}
