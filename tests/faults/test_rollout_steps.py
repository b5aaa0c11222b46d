"""The numbered steps of docs/rollout.md, performed in their order on real processes under load."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from stt_client import CallRecord, SttClient, SttPool
from stt_server.testing.paths import ROOT
from stt_server.testing.processes import ProcessError, free_port
from stt_server.testing.scripted_model import Script
from stt_server.testing.services import ServiceProcess, running
from tests.faults.callers import PATIENCE_S, http, post
from tests.support.observing import eventually
from tests.support.services import speech

OLD, NEW = "the old larger model says", "the new larger model says"
UNSURE = Script(text="the smaller model says", confidence=0.1, seconds=0.02)
PAUSE_S = 0.05
"""Between two calls of a caller, in seconds: starting services need the processor too."""


class Steps:
    """The numbered steps of a section of docs/rollout.md, ticked off one by one."""

    def __init__(self, section: str) -> None:
        page = (ROOT / "docs" / "rollout.md").read_text()
        text = page.split(f"\n## {section}\n", 1)[1].split("\n## ")[0]
        self._left = re.findall(r"^\d\. (.+)$", text, re.MULTILINE)

    def begin(self, beginning: str) -> None:
        """Check that the page's next step begins with these words."""
        step = self._left.pop(0)
        assert step.startswith(beginning), step

    def finish(self) -> None:
        assert self._left == [], "steps that the test doesn't perform"


@dataclass
class Calls:
    """Outcomes of a pool's calls."""

    texts: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    async def latest(self) -> str:
        return self.texts[-1] if self.texts else ""

    async def more(self, count: int = 20) -> None:
        """Wait until `count` more calls are answered."""
        goal = len(self.texts) + count

        async def reached() -> bool:
            return len(self.texts) >= goal

        await eventually(reached, True, PATIENCE_S)


@asynccontextmanager
async def calling(targets: list[str]) -> AsyncIterator[Calls]:
    """Call services again and again, until the end of the context."""
    calls, audio, over = Calls(), speech(), asyncio.Event()

    async def call_repeatedly(pool: SttPool) -> None:
        while not over.is_set():
            try:
                calls.texts.append((await pool.transcribe(audio)).text)
            except Exception as error:
                calls.failures.append(repr(error))
            await asyncio.sleep(PAUSE_S)

    async with SttPool(targets) as pool:
        await pool.wait_ready(PATIENCE_S)
        tasks = [asyncio.create_task(call_repeatedly(pool)) for _ in range(3)]
        try:
            yield calls
        finally:
            over.set()
            await asyncio.gather(*tasks)


@pytest.fixture
def processes() -> Iterator[ExitStack]:
    """Ends what a test has started, with `running`."""
    with ExitStack() as stack:
        yield stack


async def start(processes: ExitStack, process: ServiceProcess) -> ServiceProcess:
    await asyncio.to_thread(processes.enter_context, running(process))
    return process


async def metrics(process: ServiceProcess) -> dict[str, Any]:
    """The JSON of `GET /v1/metrics`."""
    async with http(process) as client:
        found: dict[str, Any] = (await client.get("/v1/metrics")).json()
        return found


async def finished(process: ServiceProcess) -> int:
    """Number of requests that a service has finished."""
    return int((await metrics(process))["requests"]["total"])


async def test_rolling_update_fails_no_call(tmp_path: Path, processes: ExitStack) -> None:
    steps = Steps("Rolling update")
    old_fallback = await start(processes, ServiceProcess("fallback", tmp_path / "old", {}, Script(text=OLD)))
    ports = {name: free_port() for name in ("old1", "old2", "new1", "new2")}

    def primary(name: str, fallback: ServiceProcess) -> ServiceProcess:
        keys: dict[str, object] = {"FALLBACK_URL": f"grpc://{fallback.target}", "GRPC_PORT": ports[name]}
        return ServiceProcess("primary", tmp_path / name, {**keys, "SERVER_COMMIT": name}, UNSURE)

    old = [await start(processes, primary(name, old_fallback)) for name in ("old1", "old2")]
    async with calling([f"127.0.0.1:{port}" for port in ports.values()]) as calls:
        await calls.more()
        assert await calls.latest() == OLD

        steps.begin("Start the new fallback beside the old one")
        keys: dict[str, object] = {"SERVER_COMMIT": "new"}
        fallback = await start(processes, ServiceProcess("fallback", tmp_path / "new", keys, Script(text=NEW)))
        async with http(fallback) as client:
            assert (await client.get("/v1/health")).json()["ok"] is True
        assert (await metrics(fallback))["server_commit"] == "new"

        steps.begin("Set the primaries' `FALLBACK_URL` to the new fallback")
        for process in old:
            process.write_config(FALLBACK_URL=f"grpc://{fallback.target}")
        await eventually(calls.latest, NEW, PATIENCE_S)
        # Each primary reads its own file.
        await eventually(lambda: unchanged(old_fallback, calls), True, PATIENCE_S)
        at_old_fallback = await finished(old_fallback)

        steps.begin("Start one new primary as a [canary](#canary)")
        for name, process in zip(("new1", "new2"), old, strict=True):
            new = await start(processes, primary(name, fallback))
            await eventually(lambda new=new: answers(new), True, PATIENCE_S)  # type: ignore[misc]
            assert await asyncio.to_thread(process.stop) == 0
            await calls.more()

        steps.begin("Stop the old fallback")
        assert await finished(old_fallback) == at_old_fallback
        assert await asyncio.to_thread(old_fallback.stop) == 0
        await calls.more()
    steps.finish()
    assert calls.failures == []
    assert set(calls.texts) == {OLD, NEW}


async def unchanged(process: ServiceProcess, calls: Calls) -> bool:
    """Whether a service receives none of the next calls."""
    before = await finished(process)
    await calls.more()
    return await finished(process) == before


async def answers(process: ServiceProcess) -> bool:
    return await finished(process) > 0


OLD_FALLBACK: dict[str, object] = {"DEVICE_INDEX": 0, "CPU_THREADS": 2, "API_KEYS": "fb_key_123", "MAX_UPLOAD_MB": 16}
OLD_PRIMARY: dict[str, object] = {
    "MAX_CONCURRENCY": 2,
    "SERVER_COMMIT": "prod-2026-11-29",
    "CONF_LOGPROB_THRESHOLD": 0.55,
    "CONF_LANGPROB_THRESHOLD": 0.70,
    "MIN_WORDS_FOR_CONF": 3,
    "FALLBACK_URL": "http://stt-fallback:8082",
    "FALLBACK_API_KEY": "fb_key_123",
    "API_KEYS": "primary_key_abc",
    "RATE_LIMIT_RPS": 15,
    "RATE_LIMIT_BURST": 30,
}
"""Files of the HTTP pair; the launcher adds paths, ports and the device."""


async def test_migration_from_the_http_pair(tmp_path: Path, processes: ExitStack) -> None:
    steps = Steps("Migrate from the HTTP pair")

    steps.begin("Copy the fallback's `.env` file and start `stt-fallback` with it")
    fallback = ServiceProcess("fallback", tmp_path / "fallback", OLD_FALLBACK | {"WORKERS": 1}, Script(text=NEW))
    with pytest.raises(ProcessError, match="WORKERS"):
        await start(processes, fallback)
    del fallback.keys["WORKERS"]
    fallback.write_config()
    await start(processes, fallback)

    steps.begin("Copy the primary's file, and start `stt-primary` in the same way")
    primary = ServiceProcess("primary", tmp_path / "primary", OLD_PRIMARY, UNSURE)
    with pytest.raises(ProcessError, match=r"FALLBACK_URL.*grpc://stt-fallback:50052"):
        await start(processes, primary)
    primary.write_config(FALLBACK_URL=f"grpc://{fallback.target}")
    await start(processes, primary)

    steps.begin("Compare both on your recordings")
    async with http(primary, headers={"Authorization": "Bearer primary_key_abc"}) as client:
        answer = await post(client)
        assert (answer.status_code, answer.json()["text"]) == (200, NEW)
        timings = {"X-Queue-Wait-ms", "X-Primary-Infer-ms", "X-Fallback-Infer-ms", "X-Total-ms"}
        routing = {"X-Fallback-Used", "X-Conf-Below", "X-Lang-Check-Applicable", "X-Final-Model"}
        assert {name for name in {"X-Req-Id", *timings, *routing} if name not in answer.headers} == set()

    steps.begin("Move REST callers")
    async with http(primary) as stranger:
        refused = await post(stranger)
        assert (refused.status_code, refused.headers["X-Error-Type"]) == (401, "unauthenticated")
    assert (await metrics(primary))["server_commit"] == "prod-2026-11-29"

    steps.begin("Replace the HTTP SDK by ours")
    records: list[CallRecord] = []
    async with SttClient(primary.target, api_key="primary_key_abc", telemetry=records.append) as client_of_ours:
        assert (await client_of_ours.transcribe(speech())).text == NEW
        assert client_of_ours.latency.p95 is not None
    assert [(record.method, record.ok) for record in records][-1] == ("Transcribe", True)

    steps.begin("Stop the old primary, then the old fallback")
    assert await asyncio.to_thread(primary.stop) == 0
    assert await asyncio.to_thread(fallback.stop) == 0
    steps.finish()
