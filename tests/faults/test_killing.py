"""SIGKILL during live speech: of the service, and of its caller."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from stt_server.testing.paths import ROOT
from stt_server.testing.scripted_model import Script
from stt_server.testing.services import ServiceProcess, running
from tests.faults.callers import PATIENCE_S
from tests.support.speech import clip, samples_of, silence, wav_of


async def stt_stream(process: ServiceProcess, recording: Path) -> Process:
    command = [sys.executable, "-m", "stt_client.cli", "stream", str(recording), "--realtime", "--json"]
    environ = {"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]}
    return await asyncio.create_subprocess_exec(
        *command, "--server", process.target, stdin=DEVNULL, stdout=PIPE, stderr=PIPE, env=environ
    )


def is_final(event: dict[str, Any]) -> bool:
    return "final" in event


async def until_streams(process: ServiceProcess, count: int) -> None:
    """Wait until `count` live streams are open."""

    async def reached() -> None:
        async with httpx.AsyncClient(base_url=process.url, timeout=PATIENCE_S) as client:
            while f"stt_streams_active {count}.0" not in (await client.get("/metrics")).text:  # noqa: ASYNC110
                await asyncio.sleep(0.05)

    await asyncio.wait_for(reached(), PATIENCE_S)


async def test_streams_survive_a_killed_service_and_end_with_callers(tmp_path: Path) -> None:
    fox = samples_of(clip("en", "quick_brown_fox"))
    recording = tmp_path / "three.wav"
    recording.write_bytes(wav_of(np.concatenate([part for _ in range(3) for part in (fox, silence(1.2))])))
    process = ServiceProcess("primary", tmp_path / "primary", {}, Script())
    with running(process):
        caller = await stt_stream(process, recording)
        finals: list[dict[str, Any]] = []
        assert caller.stdout is not None
        while not finals:
            event = json.loads(await asyncio.wait_for(caller.stdout.readline(), PATIENCE_S))
            finals += [event] if is_final(event) else []
        process.kill()
        await asyncio.to_thread(process.restart)
        out, err = await asyncio.wait_for(caller.communicate(), PATIENCE_S)
        finals += filter(is_final, map(json.loads, out.splitlines()))
        assert (caller.returncode, len(finals)) == (0, 3), err.decode()
        assert "Traceback" not in err.decode()
        killed = await stt_stream(process, recording)
        await until_streams(process, 1)
        killed.kill()
        await killed.wait()
        await until_streams(process, 0)
        assert process.stop() == 0
    assert "Traceback" not in process.log_text()
