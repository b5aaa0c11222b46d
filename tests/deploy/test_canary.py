"""`buildscripts/canary` on a real Prometheus: a canary behind Envoy is judged, stopped, and no caller notices."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from stt_client import SttClient
from stt_server.testing.paths import ROOT
from stt_server.testing.scripted_model import Script
from tests.deploy.canary_deployment import CanaryDeployment, canary_deployment
from tests.support.observing import eventually
from tests.support.services import speech

COMMAND = ROOT / "buildscripts" / "canary"
GOOD = Script(seconds=0.02)
PATIENCE_S = 60.0
CALLERS = 4


@dataclass
class Calls:
    """Outcomes of calls through Envoy."""

    answered: int = 0
    failures: list[str] = field(default_factory=list)


@asynccontextmanager
async def calling(target: str) -> AsyncIterator[Calls]:
    """Call a service again and again, until the end of the context."""
    calls, audio, over = Calls(), speech(), asyncio.Event()

    async def call_repeatedly(client: SttClient) -> None:
        while not over.is_set():
            try:
                await client.transcribe(audio)
                calls.answered += 1
            except Exception as error:
                calls.failures.append(repr(error))

    async with SttClient(target) as client:
        await client.wait_ready(PATIENCE_S)
        tasks = [asyncio.create_task(call_repeatedly(client)) for _ in range(CALLERS)]
        try:
            yield calls
        finally:
            over.set()
            await asyncio.gather(*tasks)


async def canary(deployment: CanaryDeployment, minutes: float) -> tuple[int, str]:
    """Run the command with windows of seconds; return its exit status and output."""
    command = [str(COMMAND), "--prometheus", deployment.prometheus]
    command += ["--baseline", 'track="baseline"', "--canary", '{track="canary"}', "--min-requests", "20"]
    command += ["--window", "10s", "--hold", "10s", "--step", "1s", "--watch", str(minutes), "--every", "1"]
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output = (await process.communicate())[0].decode()
    assert process.returncode is not None
    return process.returncode, output


async def set_share(deployment: CanaryDeployment, percent: int) -> None:
    """Send this share of the calls to the canary."""
    async with httpx.AsyncClient() as http:
        (await http.post(f"{deployment.admin}/runtime_modify?stt.canary_percent={percent}")).raise_for_status()


async def requests_of_canary(deployment: CanaryDeployment) -> int:
    async with SttClient(deployment.canary.target) as client:
        return int((await client.status()).snapshot["requests"]["total"])


@pytest.mark.parametrize(
    ("worse", "guardrail"),
    [(Script(seconds=0.6), "p95 latency"), (Script(seconds=0.02, confidence=0.1), "fallback share")],
    ids=["slow", "worse model"],
)
async def test_bad_canary_is_stopped_and_no_caller_fails(worse: Script, guardrail: str, tmp_path: Path) -> None:
    async with canary_deployment(tmp_path, GOOD) as deployment, calling(deployment.target) as calls:
        assert await requests_of_canary(deployment) == 0
        status, output = await canary(deployment, minutes=0)
        assert (status, "no verdict yet" in output) == (1, True), output

        await set_share(deployment, 50)
        status, output = await canary(deployment, minutes=0.4)
        assert (status, "go on: no guardrail is exceeded" in output) == (0, True), output

        deployment.canary.act(worse)
        status, output = await canary(deployment, minutes=3)
        assert status == 1, output
        assert f"stop the rollout: {guardrail} exceeded" in output, output

        await set_share(deployment, 0)
        at_canary, answered = await requests_of_canary(deployment), calls.answered
        await eventually(lambda: _more(calls, answered + 50), True, PATIENCE_S)
        # Those in flight when the share changed.
        assert await requests_of_canary(deployment) - at_canary <= CALLERS
    assert calls.failures == []


async def _more(calls: Calls, count: int) -> bool:
    return calls.answered >= count


def test_prometheus_that_does_not_answer_is_one_line(tmp_path: Path) -> None:
    command = [sys.executable, str(COMMAND), "--prometheus", "http://127.0.0.1:1"]
    command += ["--baseline", 'track="baseline"', "--canary", 'track="canary"']
    run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (run.returncode, run.stdout, run.stderr.count("\n")) == (1, "", 1)
    assert run.stderr.startswith("canary: http://127.0.0.1:1 doesn't answer as Prometheus does")


def test_selector_that_is_none_is_refused() -> None:
    command = [sys.executable, str(COMMAND), "--prometheus", "http://127.0.0.1:1"]
    run = subprocess.run(
        [*command, "--baseline", "stable", "--canary", 'track="canary"'], capture_output=True, text=True, check=False
    )
    assert run.returncode == 2
    assert "invalid selector 'stable': use label matchers" in run.stderr
