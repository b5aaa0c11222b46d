"""tests/smoke_test_stt.py against a scripted server: requests, report and exit status."""

from __future__ import annotations

import asyncio
import io
import struct
import sys
import wave
from pathlib import Path

import pytest

from tests import smoke_test_stt as smoke
from tests.support.contract_messages import transcript
from tests.support.contract_script import Request, Response, Script
from tests.support.contract_service import serving

RATE = 8000


def recording(path: Path, seconds: float, rate: int = RATE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(b"\x01\x02" * int(seconds * rate))
    return path


@pytest.fixture
def audio(tmp_path: Path) -> Path:
    """Three clips: two in a folder named after a language."""
    recording(tmp_path / "audio" / "en" / "one.wav", 1)
    recording(tmp_path / "audio" / "en" / "two.wav", 0.5)
    recording(tmp_path / "audio" / "unknown" / "three.wav", 0.25)
    (tmp_path / "audio" / "en" / "one.txt").write_text("not a recording")
    return tmp_path / "audio"


def seconds_of(audio: bytes) -> float:
    with wave.open(io.BytesIO(audio)) as file:
        return float(file.getnframes() / file.getframerate())


def routed(request: Request, *, fallback_used: bool = False) -> Response:
    """Response in the requested language, whose check is off where the language is forced."""
    response = transcript(language=request.options.language or "en", fallback_used=fallback_used)
    response.routing.language_check_applicable = not request.options.language
    return response


def escalated_if_forced(request: Request) -> Response:
    return routed(request, fallback_used=bool(request.options.language))


async def run(port: int, *args: object) -> int:
    options = smoke.parse_arguments(["--server", f"127.0.0.1:{port}", *map(str, args)])
    return await smoke.run(options)


async def test_clips_are_sent_forced_detected_and_joined(audio: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = Script(reply=routed, keys={"secret-key"})
    async with serving(script) as service:
        assert await run(service.port, "--audio", audio, "--api-key", "secret-key", "--long-seconds", 5) == 0
    sent = [(request.options.language, seconds_of(request.audio)) for request in script.requests]
    # The folder of three.wav is not a language code, so its language is only detected.
    short = [("en", 1.0), ("", 1.0), ("en", 0.5), ("", 0.5), ("", 0.25)]
    assert sent[:5] == short
    assert [language for language, _ in sent[5:]] == ["", "en", ""]
    assert all(5 <= seconds < 8 for _, seconds in sent[5:])
    out = capsys.readouterr().out
    assert [line.split("  ")[0] for line in out.splitlines() if line.startswith(("short", "long", "all"))] == [
        "long, detected",
        "long, forced",
        "short, detected",
        "short, forced",
        "all",
    ]
    assert "ok    0 failed" in out


async def test_a_fallback_rate_over_the_bound_fails(audio: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ("--audio", audio / "en", "--long-seconds", 0)
    async with serving(Script(reply=escalated_if_forced)) as service:
        assert await run(service.port, *args, "--max-fallback-rate", 0.49) == 1
        assert "OVER  fallback rate 50.0%, at most 49.0%" in capsys.readouterr().out
        assert await run(service.port, *args, "--max-fallback-rate", 0.5) == 0


async def test_a_p95_over_the_bound_fails(audio: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with serving(Script(reply=routed)) as service:
        assert await run(service.port, "--audio", audio, "--long-seconds", 0, "--max-p95", 0) == 1
        assert "OVER  p95 of short clips" in capsys.readouterr().out
        assert await run(service.port, "--audio", audio, "--long-seconds", 0, "--max-p95", 60) == 0


async def test_a_bound_without_measurements_fails(audio: Path) -> None:
    async with serving(Script(reply=routed)) as service:
        assert await run(service.port, "--audio", audio, "--long-seconds", 0, "--max-p95-long", 60) == 1


async def test_failed_calls_are_listed(audio: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with serving(Script(reply=routed, keys={"secret-key"})) as service:
        args = ("--audio", audio / "en" / "one.wav", "--language", "en", "--api-key", "wrong")
        assert await run(service.port, *args, "--long-seconds", 0) == 1
        out = capsys.readouterr().out
        assert "one.wav (short, forced): unauthenticated: no key [" in out
        assert "OVER  2 failed, at most 0 allowed" in out
        assert await run(service.port, *args, "--long-seconds", 0, "--max-errors", 2) == 0


async def test_an_answer_in_another_language_than_forced_fails(audio: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def always_german(request: Request) -> Response:
        response = routed(request)
        response.language = "de"
        return response

    async with serving(Script(reply=always_german)) as service:
        assert await run(service.port, "--audio", audio / "en", "--long-seconds", 0) == 1
    assert "language forced to en, but the answer is de" in capsys.readouterr().out


async def test_clips_repeat_up_to_requests_within_the_concurrency(audio: Path) -> None:
    now, most = 0, 0
    two_are_here = asyncio.Event()

    async def counted(request: Request) -> Response:
        nonlocal now, most
        now += 1
        most = max(most, now)
        if now == 2:
            two_are_here.set()
        await asyncio.wait_for(two_are_here.wait(), 30)
        now -= 1
        return routed(request)

    script = Script(reply=counted)
    async with serving(script) as service:
        assert await run(service.port, "--audio", audio, "--requests", 20, "--concurrency", 2) == 0
    assert (len(script.requests), most) == (20, 2)


async def test_missing_recordings_exit_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert await run(1, "--audio", tmp_path) == 2
    assert "no recordings found" in capsys.readouterr().out
    assert await run(1, "--audio", tmp_path / "gone.wav") == 2
    assert "can't read" in capsys.readouterr().out


async def test_the_script_reports_an_unreachable_service(audio: Path) -> None:
    async with serving(Script(reply=routed)) as service:
        pass
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        smoke.__file__,
        *("--server", f"127.0.0.1:{service.port}", "--audio", str(audio)),
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 1
    assert "is not SERVING or unreachable" in out.decode()


def test_clips_of_another_rate_are_not_joined(tmp_path: Path) -> None:
    files = [recording(tmp_path / "en" / "a.wav", 1), recording(tmp_path / "en" / "b.wav", 1, rate=16000)]
    (long,) = smoke.join(smoke.clips_of(files, ""), 2)
    assert seconds_of(long.audio) == pytest.approx(2 * (1 + smoke.PAUSE_SECONDS))


def test_float_wav_clips_are_joined_and_other_files_skipped(tmp_path: Path) -> None:
    # Two channels of 32-bit floats: format 3, 8 bytes a frame.
    fmt = struct.pack("<HHIIHH", 3, 2, RATE, RATE * 8, 8, 32)
    chunks = b"fmt " + struct.pack("<I", len(fmt)) + fmt + b"data" + struct.pack("<I", RATE * 8) + bytes(RATE * 8)
    wav = smoke.Clip("a.wav", b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks, "en")
    mp3 = smoke.Clip("b.mp3", b"ID3 and so on", "en")
    (long,) = smoke.join([wav, mp3], 3)
    assert long.audio[20 : 20 + len(fmt)] == fmt
    data_size = struct.unpack_from("<I", long.audio, 20 + len(fmt) + 4)[0]
    assert data_size / (RATE * 8) == pytest.approx(2 * (1 + smoke.PAUSE_SECONDS))
    assert len(long.audio) == struct.unpack_from("<I", long.audio, 4)[0] + 8
    assert smoke.join([mp3], 3) == []
