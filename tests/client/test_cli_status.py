"""`stt status`, run in a thread against a scripted server."""

from __future__ import annotations

import asyncio
import io
import json
import sys

import pytest

from stt_client.cli import main
from tests.support.contract_messages import SNAPSHOT
from tests.support.contract_script import Failure, Script
from tests.support.contract_service import serving


async def stt(*arguments: str) -> int:
    return await asyncio.to_thread(main, ["status", *arguments])


async def test_output_is_plain_lines_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    async with serving() as served:
        assert await stt("--server", served.target) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"server: {served.target}",
        "health: serving",
        "service: primary",
        "model: tiny",
        "device: cpu (int8)",
        "commit: abc123",
        "uptime: 0:00:12",
        "requests: 8",
        "fallback: 25.0% (1 of 4)",
        "p50: 100.0 ms",
        "p95: 200.0 ms",
        "p99: 300.0 ms",
        "waiting: 2 of 64",
        "running: 1 of 2",
    ]


async def test_a_table_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(screen, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setenv("COLUMNS", "100")
    async with serving() as first, serving() as second:
        assert await stt("--server", first.target, "--server", second.target) == 0
    shown = screen.getvalue()
    assert first.target in shown
    assert second.target in shown
    assert "25.0% (1 of 4)" in shown
    assert "┃" in shown or "│" in shown


async def test_json_is_a_list_with_the_snapshot(capsys: pytest.CaptureFixture[str]) -> None:
    async with serving() as served:
        assert await stt("--json", "--server", served.target) == 0
    (report,) = json.loads(capsys.readouterr().out)
    assert (report["server"], report["ok"], report["health"]) == (served.target, True, "serving")
    assert report["limits"]["max_queue"] == 64
    assert report["snapshot"] == SNAPSHOT


async def test_missing_statistics_are_shown_as_dashes(capsys: pytest.CaptureFixture[str]) -> None:
    async with serving(Script(snapshot_json="{}")) as served:
        assert await stt("--server", served.target) == 0
    lines = capsys.readouterr().out.splitlines()
    assert {"requests: -", "fallback: -", "p95: -", "waiting: - of 64"} <= set(lines)


async def test_a_service_that_is_not_serving_is_down(capsys: pytest.CaptureFixture[str]) -> None:
    async with serving() as served:
        await served.set_serving(False)
        assert await stt("--server", served.target) == 1
    assert "health: not serving" in capsys.readouterr().out


async def test_an_unreachable_service_does_not_hide_the_others(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with serving() as served:
        assert await stt("--server", "127.0.0.1:1", "--server", served.target) == 1
    out, err = capsys.readouterr()
    assert "server: 127.0.0.1:1\nhealth: unreachable" in out
    assert "model: tiny" in out
    assert "can't reach 127.0.0.1:1. Check" in err


async def test_json_includes_the_error_of_a_service(capsys: pytest.CaptureFixture[str]) -> None:
    async with serving(Script(status_failure=Failure("internal", "oh dear"))) as served:
        assert await stt("--json", "--server", served.target) == 1
    (report,) = json.loads(capsys.readouterr().out)
    assert report["ok"] is False
    assert report["error"].startswith("oh dear. ")
