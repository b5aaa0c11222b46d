"""Files that are not what they say, say what they are not, or ask for more than they bring."""

from __future__ import annotations

import io
import os
import struct
import threading
import tracemalloc
from pathlib import Path

import av
import av.error
import numpy as np
import pytest

from stt_server.audio import SAMPLE_RATE, decode
from stt_server.audio.formats import sniff
from stt_server.errors import AudioTooLong, EmptyAudio, InvalidArgument, SttError, UnsupportedAudio
from stt_server.testing.audio_samples import CONTAINER, FloatArray, chirp, encode, likeness, silence, wav, wav_header

SOURCE = chirp(4.0)
NOISE = np.random.default_rng(0)


def heard(data: bytes, max_seconds: float = 60) -> FloatArray:
    return decode(data, CONTAINER, max_seconds=max_seconds)


def damaged(data: bytes, length: int = 300) -> bytes:
    """`data` with noise over `length` bytes of its middle."""
    middle = len(data) // 2
    return data[:middle] + np.random.default_rng(0).bytes(length) + data[middle + length :]


# --- no file of the server is opened ------------------------------------------------------------------------------


class Canary:
    """A pipe in the file system: its writer is let in only when somebody opens it to read."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self._path = path
        self.opened = threading.Event()
        self._let_go = False
        self._thread = threading.Thread(target=self._wait_for_reader)
        self._thread.start()

    def _wait_for_reader(self) -> None:
        os.close(os.open(self._path, os.O_WRONLY))
        if not self._let_go:
            self.opened.set()

    def close(self) -> None:
        self._let_go = True
        reader = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK)
        self._thread.join()
        os.close(reader)


FFCONCAT = b"ffconcat version 1.0\nfile canary.wav\n"
PLAYLISTS = {
    "ffconcat": FFCONCAT,
    "m3u8": b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\ncanary.wav\n#EXT-X-ENDLIST\n",
    "m3u8 behind a tag": b"ID3\x04\0\0\0\0\0\0#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\ncanary.wav\n",
    "mpd": b'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period><AdaptationSet '
    b'mimeType="audio/wav"><Representation id="1"><BaseURL>canary.wav</BaseURL></Representation></AdaptationSet>'
    b"</Period></MPD>",
    "sdp": b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 5004 RTP/AVP 0\r\n",
}


def test_canary_sings_when_ffmpeg_is_left_to_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    canary = Canary(tmp_path / "canary.wav")
    with pytest.raises(av.error.FFmpegError):
        av.open(io.BytesIO(FFCONCAT))
    assert canary.opened.wait(10)
    canary._thread.join()


@pytest.mark.parametrize("playlist", PLAYLISTS)
def test_playlist_is_refused_and_opens_nothing(playlist: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    canary = Canary(tmp_path / "canary.wav")
    try:
        with pytest.raises(UnsupportedAudio):
            heard(PLAYLISTS[playlist])
        assert not canary.opened.is_set()
    finally:
        canary.close()


# --- not audio, or not enough of it -------------------------------------------------------------------------------


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
        b"RIFF\0\0\0\0AVI " + bytes(200),
    ],
)
def test_what_is_not_audio_never_reaches_ffmpeg(data: bytes) -> None:
    assert sniff(data) is None
    with pytest.raises(UnsupportedAudio, match="WAV, FLAC, MP3"):
        heard(data)


@pytest.mark.parametrize(
    "magic",
    [
        b"RIFF\0\0\0\0WAVE",
        b"fLaC",
        b"OggS",
        b"\x1a\x45\xdf\xa3",
        b"\0\0\0\x18ftypM4A ",
        b"ID3\x04\0\0\0\0\0\0",
        b"ID3",
        b"\xff\xfb\x90\0",
        b"\xff\xf1\x50\x80",
    ],
)
@pytest.mark.parametrize("rest", [b"", bytes(2000), b"x" * 2000, NOISE.bytes(20_000)])
def test_garbage_behind_the_right_first_bytes_is_refused_in_our_words(magic: bytes, rest: bytes) -> None:
    with pytest.raises((UnsupportedAudio, EmptyAudio, InvalidArgument)) as refused:
        heard(magic + rest)
    assert "Errno" not in refused.value.message
    assert "Invalid data" not in refused.value.message


@pytest.mark.parametrize("seed", range(40))
def test_noise_anywhere_in_a_file_gives_audio_or_an_error_of_ours(seed: int) -> None:
    kinds = [("wav", "pcm_s16le"), ("flac", "flac"), ("ogg", "libopus"), ("ipod", "aac"), ("webm", "libopus")]
    container, codec = kinds[seed % len(kinds)]
    rng = np.random.default_rng(seed)
    data = bytearray(encode(chirp(0.5, 48_000), 48_000, container, codec))
    for place in rng.integers(0, len(data), 20):
        data[place] = rng.integers(256)
    try:
        audio = heard(bytes(data))
    except SttError:
        return
    assert np.isfinite(audio).all()


@pytest.mark.parametrize("data", [b"", wav_header(SAMPLE_RATE, 1, 0)], ids=["no bytes", "header only"])
def test_nothing_to_hear_is_empty(data: bytes) -> None:
    with pytest.raises(EmptyAudio):
        heard(data)


def test_file_without_a_sound_track_is_refused() -> None:
    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as target:
        video = target.add_stream("mpeg4", rate=10, width=32, height=32, pix_fmt="yuv420p")
        target.mux(video.encode(av.VideoFrame(32, 32, "yuv420p")))
        target.mux(video.encode(None))
    with pytest.raises(UnsupportedAudio, match="no audio stream"):
        heard(out.getvalue())


def test_codec_off_the_list_is_refused() -> None:
    with pytest.raises(UnsupportedAudio, match="codec"):
        heard(encode(chirp(1.0, 48_000), 48_000, "matroska", "ac3"))


@pytest.mark.parametrize("rate", [0, 1, 8, 3_999, 192_001, 2**31, 2**32 - 1])
def test_absurd_rate_is_refused_with_the_range(rate: int) -> None:
    with pytest.raises(InvalidArgument, match=rf"sample rate is {rate} Hz; it must be 4000 to 192000 Hz"):
        heard(wav_header(rate, 1, 40_000) + bytes(40_000))


def test_absurd_rate_of_another_container_is_refused() -> None:
    data = encode(SOURCE, SAMPLE_RATE, "mov", "pcm_s16le")
    place = data.index(struct.pack(">I", SAMPLE_RATE << 16), data.index(b"stsd"))
    absurd = data[:place] + struct.pack(">I", 8 << 16) + data[place + 4 :]
    with pytest.raises(InvalidArgument, match="sample rate is"):
        heard(absurd)


@pytest.mark.parametrize("channels", [0, 9, 255])
def test_too_many_channels_are_refused_with_the_range(channels: int) -> None:
    with pytest.raises(InvalidArgument, match=rf"{channels} channels; it must have 1 to 8"):
        heard(wav_header(SAMPLE_RATE, channels, 40_000) + bytes(40_000))


# --- damaged, but of use ------------------------------------------------------------------------------------------

STREAMS = [
    ("wav", "pcm_s16le"),
    ("flac", "flac"),
    ("mp3", "libmp3lame"),
    ("ogg", "libopus"),
    ("webm", "libopus"),
    ("adts", "aac"),
]


@pytest.mark.parametrize(("container", "codec"), STREAMS)
def test_truncated_file_gives_the_audio_it_holds(container: str, codec: str) -> None:
    data = encode(chirp(4.0, 48_000), 48_000, container, codec)
    audio = heard(data[: len(data) * 3 // 4])
    seconds = len(audio) / SAMPLE_RATE
    assert 2.0 < seconds < 3.6
    assert likeness(audio, SOURCE[: len(audio)])[0] > 0.95


def test_wav_cut_inside_a_sample_loses_its_last_packet_at_most() -> None:
    """The FFmpeg of PyAV 18 loses that sample alone; the one of PyAV 17, which Python 3.10 gets, its packet."""
    data = wav_header(SAMPLE_RATE, 1, 2 * len(SOURCE)) + (SOURCE * 32767).astype("<i2").tobytes()
    assert 1 <= len(SOURCE) - len(heard(data[:-1])) <= 1024


@pytest.mark.parametrize(("container", "codec"), STREAMS[1:])
def test_audio_on_both_sides_of_the_damage_is_kept(container: str, codec: str) -> None:
    long = chirp(20.0, 48_000)
    audio = heard(damaged(encode(long, 48_000, container, codec)))
    source = chirp(20.0)
    assert len(audio) > 0.7 * len(source)
    head, tail = 6 * SAMPLE_RATE, 4 * SAMPLE_RATE
    assert likeness(audio[:head], source[:head])[0] > 0.95
    assert likeness(audio[-tail:], source[-tail:])[0] > 0.95


def test_file_of_which_nothing_decodes_is_refused() -> None:
    data = encode(SOURCE, SAMPLE_RATE, "ipod", "aac")
    size = struct.unpack(">I", data[data.index(b"mdat") - 4 :][:4])[0] - 8
    filler = _rebuilt(data, {b"mdat": b"\xff" * size})
    assert len(filler) == len(data)
    with pytest.raises(UnsupportedAudio, match="nothing in the file can be decoded"):
        heard(filler)


# --- small files that are long, or endless ------------------------------------------------------------------------


def peak_while_refused(data: bytes, max_seconds: float) -> int:
    """Most bytes that Python and numpy held at a time until the file was found too long."""
    tracemalloc.start()
    try:
        with pytest.raises(AudioTooLong, match=f"limit of {max_seconds:g} seconds"):
            heard(data, max_seconds)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("container", "codec"), [("flac", "flac"), ("ogg", "libopus"), ("matroska", "flac")])
def test_decoding_stops_at_the_limit_with_memory_bounded_by_it(container: str, codec: str) -> None:
    bomb = encode(silence(600), SAMPLE_RATE, container, codec)
    whole = 600 * SAMPLE_RATE * 4
    assert len(bomb) < whole / 50
    limit = 10 * SAMPLE_RATE * 4
    assert peak_while_refused(bomb, 10) < 2 * limit + (1 << 20) < whole / 10


def test_low_rate_that_swells_is_stopped_too() -> None:
    samples = bytes(2 * 4_000 * 600)
    assert peak_while_refused(wav_header(4_000, 1, len(samples)) + samples, 10) < 3 << 20


@pytest.mark.parametrize("rate", [16_000, 44_100])
@pytest.mark.parametrize("codec", ["pcm_s16le", "flac"])
def test_recording_of_exactly_the_limit_is_taken(rate: int, codec: str) -> None:
    container = "flac" if codec == "flac" else "wav"
    assert len(heard(encode(chirp(4.0, rate), rate, container, codec), 4.0)) == 4 * SAMPLE_RATE
    with pytest.raises(AudioTooLong):
        heard(encode(chirp(4.2, rate), rate, container, codec), 4.0)


def test_index_that_names_the_same_bytes_again_and_again_is_refused() -> None:
    honest = encode(SOURCE, SAMPLE_RATE, "ipod", "aac")
    first_byte = honest.index(b"mdat") + 4
    times, each = 4_000, 8_000
    endless = _rebuilt(
        honest,
        {
            b"stts": struct.pack(">4I", 0, 1, times, 1),
            b"stsc": struct.pack(">5I", 0, 1, 1, 1, 1),
            b"stsz": struct.pack(">3I", 0, each, times),
            b"stco": struct.pack(">2I", 0, times) + struct.pack(">I", first_byte) * times,
        },
    )
    assert times * each > 100 * len(endless)
    with pytest.raises(UnsupportedAudio, match="index is corrupt"):
        heard(endless)


def _rebuilt(boxes: bytes, new: dict[bytes, bytes]) -> bytes:
    """MP4 `boxes` with the contents of some replaced, at any depth of the sample table."""
    out = b""
    while boxes:
        size, kind = struct.unpack(">I4s", boxes[:8])
        content, boxes = boxes[8:size], boxes[size:]
        if kind in (b"moov", b"trak", b"mdia", b"minf", b"stbl"):
            content = _rebuilt(content, new)
        content = new.get(kind, content)
        out += struct.pack(">I4s", len(content) + 8, kind) + content
    return out


def test_wav_that_says_less_than_it_holds_is_believed() -> None:
    data = wav(SOURCE, SAMPLE_RATE)
    assert len(heard(data + b"junk" * 1000)) == len(SOURCE)
