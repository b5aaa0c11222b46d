"""`stt` with recordings as people have them: any file name, long, two speakers on two channels, headers of a pipe."""

from __future__ import annotations

import asyncio
import io
import struct
import sys
from collections.abc import AsyncGenerator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from protos.stt.v1 import speech_pb2
from stt_client import Progress
from stt_client.cli import main
from stt_client.cli.progress import completed, describe
from tests.client.test_long_recordings import TALK, limited, wav
from tests.support.contract_messages import duration, transcript
from tests.support.contract_script import Failure, Script
from tests.support.contract_service import serving
from tests.support.tone_speech import RATE, recognize, tone_speech


async def stt(*arguments: str | Path) -> int:
    return await asyncio.to_thread(main, list(map(str, arguments)))


def encoded(format_: str, codec: str, *, rate: int = RATE, number: int = 0) -> bytes:
    """A tone of half a second in any container."""
    out = io.BytesIO()
    tone = (8000 * np.sin(np.arange(rate // 2) * 2 * np.pi * (400 + 200 * number) / rate)).astype(np.int16)
    with av.open(out, "w", format=format_) as container:
        stream = container.add_stream(codec, rate=rate, layout="mono")
        stream.bit_rate = 64_000
        frame = av.AudioFrame.from_ndarray(tone[None], format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
        resampler = av.AudioResampler(
            stream.codec_context.format, "mono", rate, stream.codec_context.frame_size or None
        )
        for part in (*resampler.resample(frame), *resampler.resample(None), None):
            container.mux(stream.encode(part))
    return out.getvalue()


FORMATS = {
    "wav": ("wav", "pcm_s16le"),
    "webm": ("webm", "libopus"),
    "mp4": ("mp4", "aac"),
    "quicktime": ("mov", "aac"),
    "mp3": ("mp3", "libmp3lame"),
    "mp2": ("mp2", "mp2"),
    "aac": ("adts", "aac"),
    "ogg": ("ogg", "libopus"),
    "flac": ("flac", "flac"),
    "aiff": ("aiff", "pcm_s16be"),
    "au": ("au", "pcm_mulaw"),
    "caf": ("caf", "pcm_s16le"),
    "w64": ("w64", "pcm_s16le"),
    "wma": ("asf", "wmav2"),
    "ac3": ("ac3", "ac3"),
    "mpegts": ("mpegts", "aac"),
    "flv": ("flv", "aac"),
    "avi": ("avi", "pcm_s16le"),
}


async def test_a_folder_is_searched_by_content(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "talks"
    folder.mkdir()
    for name, (format_, codec) in FORMATS.items():
        rate = 48_000 if codec in ("libopus", "ac3") else RATE
        (folder / f"{name}.recording").write_bytes(encoded(format_, codec, rate=rate))
    mp3, aac = encoded("mp3", "libmp3lame"), encoded("adts", "aac")
    (folder / "begins-in-a-frame").write_bytes(mp3[300:])
    (folder / "begins-in-a-frame.too").write_bytes(aac[100:])
    (folder / "zeros-first").write_bytes(bytes(700) + mp3)
    generator = np.random.default_rng(5)
    for name, content in {
        "notes.txt": b"not a recording\n",
        "empty": b"",
        "noise.bin": generator.integers(0, 256, 300_000, dtype=np.uint8).tobytes(),
        "photo.heic": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
        "photo.jpg": b"\xff\xd8\xff\xe0\0\x10JFIF\0" + bytes(100),
        "page.webp": b"RIFF\x24\0\0\0WEBPVP8 ",
        "utf16.txt": b"\xff\xfe" + "Hello, hello".encode("utf-16-le"),
    }.items():
        (folder / name).write_bytes(content)
    async with serving() as served:
        assert await stt("transcribe", folder, "--server", served.target) == 0
    found = {Path(line.split(": ")[0]).name for line in capsys.readouterr().out.splitlines()}
    names = {f"{name}.recording" for name in FORMATS}
    assert found == names | {"begins-in-a-frame", "begins-in-a-frame.too", "zeros-first"}


async def test_each_turn_of_a_channel_is_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    response = transcript()
    del response.segments[:]
    for channel, text in ((1, "Hello."), (1, "Who is it?"), (2, "Me."), (1, "Ah.")):
        response.segments.add(channel=channel, text=text)
    file = wav(tmp_path / "call.wav", tone_speech(1))
    async with serving(Script(response=response)) as served:
        assert await stt("transcribe", file, "--channels", "--server", served.target) == 0
        assert capsys.readouterr().out == "[1] Hello. Who is it?\n[2] Me.\n[1] Ah.\n"
        assert await stt("transcribe", file, file.parent, "--channels", "--server", served.target) == 0
    assert f"{file}: [2] Me.\n" in capsys.readouterr().out
    assert all(request.options.separate_channels for request in served.script.requests)


async def test_a_long_recording_is_continued(tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = wav(tmp_path / "talk.wav")
    script = limited()

    def fails_later(request: speech_pb2.TranscribeRequest) -> Any:
        return Failure("internal", "broken") if len(script.calls) > 3 else recognize(request)

    script.reply = fails_later
    async with serving(script) as served:
        assert await stt("transcribe", file, "--server", served.target) == 1
        assert "run it again with --resume to continue" in capsys.readouterr().err
        assert list(cache.rglob("*.jsonl"))
        before = len(script.calls)
        script.reply = recognize
        assert await stt("transcribe", file, "--resume", "--server", served.target) == 0
        resumed = len(script.calls) - before
        assert capsys.readouterr().out == f"{TALK.text}\n"
        assert not list(cache.rglob("*.jsonl")), "nothing is kept of a complete run"
        assert await stt("transcribe", file, "--resume", "--server", served.target) == 0
        assert 0 < resumed < len(script.calls) - before - resumed


async def test_a_folder_is_continued(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = Script()

    def reply(request: speech_pb2.TranscribeRequest) -> Any:
        return Failure("internal") if request.audio == b"b" and len(script.calls) <= 3 else request.audio.decode()

    script.reply = reply
    async with serving(script) as served:
        assert await stt("transcribe", folder, "--server", served.target) == 1
        capsys.readouterr()
        assert await stt("transcribe", folder, "--resume", "--server", served.target) == 0
    assert [line.split(": ")[1] for line in capsys.readouterr().out.splitlines()] == ["a", "b", "c"]
    assert [request.audio for request in script.requests][3:] == [b"b"]


async def test_a_compressed_long_recording_says_what_to_install(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "talk.mp3"
    file.write_bytes(encoded("mp3", "libmp3lame") * 1000)
    monkeypatch.setitem(sys.modules, "av", None)
    async with serving(Script(max_upload_bytes=100_000)) as served:
        assert await stt("transcribe", file, "--server", served.target) == 1
    assert "pip install 'stt-pair[files]'" in capsys.readouterr().err


def test_the_bar_shows_audio_done_speed_and_time_left() -> None:
    half = Progress(audio_duration=7200, audio_settled=3600, elapsed=120)
    assert describe(1, [], [half], 120) == "1:00:00 of 2:00:00, 30.0x, 2:00 left"
    assert completed([], [half]) == 0.5
    assert describe(1, [], [Progress(None, 60, 2)], 2) == "1:00, 30.0x"
    assert describe(4, [half], [half], 120) == "2:00:00, 60.0x, 3:20 left"
    resumed = Progress(audio_duration=100, audio_settled=60, elapsed=2, audio_kept=20)
    assert describe(1, [], [resumed], 2) == "1:00 of 1:40, 20.0x, 0:02 left"
    assert describe(2, [], [], 1) == ""


def listening(received: list[bytes]) -> Script:
    """A service that takes down the audio of streams."""

    async def listen(requests: Any, context: Any) -> AsyncGenerator[speech_pb2.StreamTranscribeResponse, None]:
        async for request in requests:
            received.append(request.audio)
        yield speech_pb2.StreamTranscribeResponse(audio_processed=duration(1))

    return Script(stream=listen)


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF])
async def test_a_wav_of_unknown_size_is_streamed(size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a recorder writes it to a pipe; without PyAV."""
    monkeypatch.setitem(sys.modules, "av", None)
    samples = tone_speech(3).samples.tobytes()
    format_ = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, RATE, 2 * RATE, 2, 16)
    header = b"RIFF" + struct.pack("<I", size) + b"WAVE" + format_ + b"data" + struct.pack("<I", size)
    file = tmp_path / "piped.wav"
    file.write_bytes(header + samples)
    received: list[bytes] = []
    async with serving(listening(received)) as served:
        assert await stt("stream", file, "--server", served.target) == 0
    assert b"".join(received) == samples


async def test_a_file_whose_rate_changes_is_streamed_whole(tmp_path: Path) -> None:
    file = tmp_path / "joined.mp3"
    file.write_bytes(encoded("mp3", "libmp3lame", rate=16_000) + encoded("mp3", "libmp3lame", rate=44_100))
    received: list[bytes] = []
    async with serving(listening(received)) as served:
        assert await stt("stream", file, "--server", served.target) == 0
    assert len(b"".join(received)) / 2 / RATE == pytest.approx(1.0, abs=0.2)
