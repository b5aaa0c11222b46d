"""`stt bench`, against a scripted server and against a service with a scripted model."""

from __future__ import annotations

import asyncio
import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from stt_client.bench.load import Reading, run_level
from stt_client.cli import main
from stt_client.convert import transcript_of
from stt_client.results import Transcript
from stt_server.testing.paths import SPEECH
from stt_server.testing.scripted_model import Script as ModelScript
from stt_server.testing.scripted_model import ScriptedModel
from tests.support.contract_messages import SNAPSHOT, trailers_of, transcript
from tests.support.contract_script import Failure, Request, Script
from tests.support.contract_service import serving
from tests.support.services import running


async def bench(*arguments: str) -> int:
    return await asyncio.to_thread(main, ["bench", "--seconds", "0.3", *arguments])


@pytest.fixture
def recording(tmp_path: Path) -> str:
    (tmp_path / "a.wav").write_bytes(b"RIFF")
    return str(tmp_path / "a.wav")


async def test_report_has_tables_a_curve_and_the_settings(recording: str, capsys: pytest.CaptureFixture[str]) -> None:
    async with serving() as served:
        assert await bench("--server", served.target, "--callers", "2,1", recording) == 0
    out, err = capsys.readouterr()
    assert f"{served.target}: primary, tiny on cpu (int8), 2 slots, commit abc123" in out
    assert "| callers | requests/s |" in out
    assert "end to end ms p50/p95/p99" in out
    assert "<- knee" in out
    assert "MAX_CONCURRENCY=" in out
    assert "MAX_BATCH_SIZE=" in out
    assert err == ""


async def test_json_has_the_times_of_the_trailing_metadata(recording: str, capsys: pytest.CaptureFixture[str]) -> None:
    snapshot = SNAPSHOT | {"gpu": {"utilization_pct": 70.0, "mem_used_mb": 900.0, "mem_total_mb": 16000.0}}
    async with serving(Script(snapshot_json=json.dumps(snapshot))) as served:
        assert await bench("--server", served.target, "--callers", "1,3", "--json", recording) == 0
    report = json.loads(capsys.readouterr().out)
    first, second = report["levels"]
    assert (first["callers"], second["callers"]) == (1, 3)
    assert first["latency_ms"]["primary"] == {"p50": 20.0, "p95": 20.0, "p99": 20.0}
    assert first["latency_ms"]["queue_wait"]["p99"] == 1.5
    assert first["latency_ms"]["fallback"] == {"p50": None, "p95": None, "p99": None}
    assert first["latency_ms"]["total"]["p50"] > 0
    assert (first["fallback_share"], first["refused"], first["errors"]) == (1.0, 0, {})
    assert (first["gpu_utilization_pct"], first["gpu_mem_used_mb"]) == (70.0, 900.0)
    assert first["little"]["service"] == 1.0
    assert first["requests_per_s"] * 1.3 == pytest.approx(first["audio_s_per_s"], rel=0.01)
    assert report["knee"] in (1, 3)
    assert report["services"][0]["limits"]["max_concurrency"] == 2


async def test_several_services_share_the_callers(recording: str) -> None:
    async with serving() as first, serving() as second:
        servers = ("--server", first.target, "--server", second.target)
        assert await bench(*servers, "--callers", "4", recording) == 0
        assert first.script.calls
        assert second.script.calls


async def test_refusals_are_counted_and_the_wait_is_respected(
    recording: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def reply(request: Request) -> Any:
        refuse = len(served.script.calls) > 10 and len(served.script.calls) % 2
        return Failure("overloaded", "full", trailers={"retry-after-ms": "60"}) if refuse else transcript()

    async with serving(Script(reply=reply, retryable=False)) as served:
        assert await bench("--server", served.target, "--callers", "2", "--json", recording) == 0
    (level,) = json.loads(capsys.readouterr().out)["levels"]
    assert level["refused"] == level["errors"]["overloaded"] >= 1
    assert level["answered"] >= 1
    # Callers that wait to try again have no request in flight.
    assert level["little"]["callers"] < 1.5


async def test_failing_requests_are_errors(recording: str, capsys: pytest.CaptureFixture[str]) -> None:
    def reply(request: Request) -> Any:
        return transcript() if len(served.script.calls) % 3 else Failure("fallback_failed", "no fallback")

    async with serving(Script(reply=reply, retryable=False)) as served:
        assert await bench("--server", served.target, "--callers", "1", recording) == 1
    assert "fallback_failed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--callers", "0"), "must be at least 1"),
        (("--callers", "two"), "--callers"),
        (("--seconds", "0"), "must be seconds greater than 0"),
    ],
)
def test_invalid_arguments_are_refused(arguments: tuple[str, ...], message: str, recording: str, capsys: Any) -> None:
    with pytest.raises(SystemExit):
        main(["bench", *arguments, recording])
    assert message in capsys.readouterr().err


async def test_a_recording_that_is_not_accepted_ends_the_run(
    recording: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async with serving(Script(failure=Failure("unsupported_audio", "not audio"))) as served:
        assert await bench("--server", served.target, recording) == 1
    out, err = capsys.readouterr()
    assert (out, err.startswith("stt: not audio. ")) == ("", True)


def test_png_without_matplotlib_names_the_extra(
    recording: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit):
        main(["bench", "--png", str(tmp_path / "curve.png"), recording])
    assert "pip install 'stt-pair[bench]'" in capsys.readouterr().err


async def test_knee_of_a_service_is_at_its_slots(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = ScriptedModel(ModelScript(seconds=0.25))
    async with running(tmp_path, model=model, MAX_CONCURRENCY=2, MAX_BATCH_SIZE=1) as service:
        server, picture = f"127.0.0.1:{service.grpc_port}", tmp_path / "curve.png"
        arguments = ["bench", "--server", server, "--callers", "1,2,12", "--seconds", "1", "--json", str(SPEECH)]
        status = await asyncio.to_thread(main, [*arguments, "--png", str(picture)])
    report = json.loads(capsys.readouterr().out)
    assert status == 0, report
    assert (report["knee"], report["MAX_CONCURRENCY"], report["MAX_BATCH_SIZE"]) == (2, 2, 1), report
    for level in report["levels"]:
        law = level["little"]
        assert law["callers"] == pytest.approx(level["callers"], rel=0.05)
        assert law["product"] == pytest.approx(law["callers"], rel=0.25), report
    waits = [level["latency_ms"]["queue_wait"]["p50"] for level in report["levels"]]
    assert waits[2] > 3 * report["levels"][2]["latency_ms"]["primary"]["p50"]
    assert picture.read_bytes().startswith(b"\x89PNG")


async def test_first_burst_is_not_measured() -> None:
    """The requests that all callers send at once have ended before measuring starts."""
    sent = 0

    async def send(request: Any) -> Transcript:
        nonlocal sent
        sent += 1
        response = transcript(fallback_used=sent <= 4)
        await asyncio.sleep(0.01)
        return transcript_of(response, trailers_of(response))

    level = await run_level(send, iter([Request()] * 100_000), 4, 0.2, readings)
    assert len(level.answered) >= 4
    assert not any(outcome.fallback_used for outcome in level.answered)
    assert {outcome.audio for outcome in level.answered} == {1.3}
    assert level.in_flight == pytest.approx(4, rel=0.1)


async def readings() -> Reading:
    return Reading(0, 0)


async def test_bug_in_a_caller_ends_the_level() -> None:
    async def send(request: Any) -> Transcript:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await run_level(send, iter([Request()] * 10), 2, 5.0, readings)
