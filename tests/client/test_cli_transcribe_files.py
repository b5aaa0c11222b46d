"""Input and output files of `stt transcribe`."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from protos.stt.v1 import speech_pb2
from stt_client.cli import main
from tests.client.test_cli_transcribe import echo, stt
from tests.support.contract_script import Script
from tests.support.contract_service import serving


async def test_a_folder_without_recordings_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert await stt(tmp_path) == 1
    assert "no recordings found; looked into all files" in capsys.readouterr().err


async def test_output_writes_each_format_and_prints_the_paths(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "deep" / "out"
    async with serving(Script(reply=echo)) as served:
        assert await stt(folder, "--output", out, "--json", "--srt", "--vtt", "--server", served.target) == 0
    stems = ("a", "b", "sub/c")
    expected = [f"{stem}.{suffix}" for stem in stems for suffix in ("json", "srt", "vtt")]
    assert capsys.readouterr().out.splitlines() == [f"{out}/{name}" for name in expected]
    assert sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()) == sorted(expected)
    assert json.loads((out / "sub" / "c.json").read_text("utf-8"))["text"] == "said c"
    assert (out / "a.vtt").read_text("utf-8").startswith("WEBVTT\n")


async def test_beside_writes_next_to_the_recording(folder: Path) -> None:
    async with serving(Script(reply=echo)) as served:
        assert await stt(folder / "sub" / "c.flac", "--beside", "--server", served.target) == 0
    assert (folder / "sub" / "c.txt").read_text("utf-8") == "said c\n"


async def test_equal_stems_get_distinct_files_and_inputs_are_kept(tmp_path: Path) -> None:
    for name in ("x.wav", "x.mp3", "y.txt"):
        (tmp_path / name).write_bytes(name.encode())
    files = [tmp_path / name for name in ("x.wav", "x.mp3", "y.txt")]
    async with serving(Script(reply=echo)) as served:
        assert await stt(*files, "--beside", "--server", served.target) == 0
    assert (tmp_path / "x.wav.txt").read_text() == "said x.wav\n"
    assert (tmp_path / "x.mp3.txt").read_text() == "said x.mp3\n"
    assert (tmp_path / "y.txt").read_text() == "y.txt"
    assert (tmp_path / "y.txt.txt").read_text() == "said y.txt\n"


async def test_a_failed_write_keeps_the_old_file_and_no_partial_file(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "a.txt").write_text("old")

    def full(source: Path, target: Path) -> None:
        raise OSError(28, "No space left on device", str(target))

    monkeypatch.setattr(os, "replace", full)
    async with serving(Script(reply=echo)) as served:
        assert await stt(folder / "a.wav", "--output", out, "--server", served.target) == 1
    assert [path.name for path in out.iterdir()] == ["a.txt"]
    assert (out / "a.txt").read_text() == "old"
    assert f"{out}/a.txt: No space left on device" in capsys.readouterr().err


async def test_standard_input_is_read_as_bytes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    piped = SimpleNamespace(buffer=io.BytesIO(b"\x00\xff\x80"), isatty=lambda: False)
    monkeypatch.setattr(sys, "stdin", piped)
    async with serving() as served:
        assert await stt("-", "--raw-rate", "8000", "--raw-encoding", "mulaw", "--server", served.target) == 0
    (request,) = served.script.requests
    assert request.audio == b"\x00\xff\x80"
    assert request.format.encoding == speech_pb2.AUDIO_ENCODING_MULAW
    assert request.format.sample_rate_hertz == 8000
    assert capsys.readouterr().out == "hello world\n"


async def test_raw_rate_searches_folders_for_headerless_files(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with serving(Script(reply=echo)) as served:
        assert await stt(folder, "--raw-rate", "16000", "--server", served.target) == 0
    assert capsys.readouterr().out == f"{folder}/e.pcm: said e\n"
    assert served.script.requests[0].format.encoding == speech_pb2.AUDIO_ENCODING_LINEAR16


def test_standard_input_from_a_terminal_is_invalid_usage(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: True))
    with pytest.raises(SystemExit) as caught:
        main(["transcribe", "-"])
    assert caught.value.code == 2
    assert "pipe a recording into it" in capsys.readouterr().err
